package models

import . "github.com/goqat/goqat/layers"

func init() {
	Register(&Spec{
		Name:   "lenet5",
		Doc:    "LeNet-5 with rectifiers and max pooling, 61,706 parameters on 28x28 images",
		Paper:  "LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998",
		Layers: lenet5,
	})
}

func lenet5(classes int) Sequential {
	return Sequential{
		&Conv2D{Name: "conv1", Outputs: 6, Kernel: 5, Pad: 2}, ReLU{}, MaxPool2D{Window: 2},
		&Conv2D{Name: "conv2", Outputs: 16, Kernel: 5}, ReLU{}, MaxPool2D{Window: 2},
		Flatten{},
		&Linear{Name: "fc1", Outputs: 120}, ReLU{},
		&Linear{Name: "fc2", Outputs: 84}, ReLU{},
		&Linear{Name: "fc3", Outputs: classes},
	}
}
