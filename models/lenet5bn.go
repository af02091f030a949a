package models

import "github.com/goqat/goqat/layers"

func init() {
	Register(&Spec{
		Name:   "lenet5bn",
		Doc:    "LeNet-5 with batch normalization behind every layer but the last, rectifiers and max pooling",
		Paper:  "LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998",
		Layers: lenet5bn,
	})
}

func lenet5bn(classes int) layers.Sequential {
	relu, pool := layers.ReLU{}, layers.MaxPool2D{Window: 2}
	bn := func(name string) layers.Layer { return &layers.BatchNorm{Name: name} }
	return layers.Sequential{
		&layers.Conv2D{Name: "conv1", Outputs: 6, Kernel: 5, Pad: 2, NoBias: true}, bn("bn1"), relu, pool,
		&layers.Conv2D{Name: "conv2", Outputs: 16, Kernel: 5, NoBias: true}, bn("bn2"), relu, pool,
		layers.Flatten{},
		&layers.Linear{Name: "fc1", Outputs: 120, NoBias: true}, bn("bn3"), relu,
		&layers.Linear{Name: "fc2", Outputs: 84, NoBias: true}, bn("bn4"), relu,
		&layers.Linear{Name: "fc3", Outputs: classes},
	}
}
