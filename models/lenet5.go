package models

import "github.com/goqat/goqat/layers"

func init() {
	Register(&Spec{
		Name:   "lenet5",
		Doc:    "LeNet-5 with rectifiers and max pooling, 61,706 parameters on 28x28 images",
		Paper:  "LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998",
		Layers: lenet5,
	})
}

func lenet5(classes int) layers.Sequential {
	relu, pool := layers.ReLU{}, layers.MaxPool2D{Window: 2}
	return layers.Sequential{
		&layers.Conv2D{Name: "conv1", Outputs: 6, Kernel: 5, Pad: 2}, relu, pool,
		&layers.Conv2D{Name: "conv2", Outputs: 16, Kernel: 5}, relu, pool,
		layers.Flatten{},
		&layers.Linear{Name: "fc1", Outputs: 120}, relu,
		&layers.Linear{Name: "fc2", Outputs: 84}, relu,
		&layers.Linear{Name: "fc3", Outputs: classes},
	}
}
