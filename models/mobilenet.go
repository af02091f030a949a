package models

import (
	"fmt"

	"github.com/goqat/goqat/layers"
)

func init() {
	Register(&Spec{
		Name:   "mobilenet",
		Doc:    "MobileNet for small images, seven depthwise separable blocks of 64 to 256 channels, 274,506 parameters on 32x32 images",
		Paper:  "Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017",
		Layers: mobilenet,
	})
}

// mobilenet is the paper's first five blocks with their strides and two more of their width in place of the wider ones.
// The first convolution leaves small images as large as they are, so that 8x8 are left of 32x32.
func mobilenet(classes int) layers.Sequential {
	relu := layers.ReLU{}
	net := layers.Sequential{conv3x3("conv1", 32, 1), &layers.BatchNorm{Name: "bn1"}, relu}
	in := 32
	for i, block := range []struct{ channels, stride int }{{64, 1}, {128, 2}, {128, 1}, {256, 2}, {256, 1}, {256, 1}, {256, 1}} {
		name := fmt.Sprintf("block%d.", i+1)
		depthwise, pointwise := conv3x3(name+"depthwise", in, block.stride), conv1x1(name+"pointwise", block.channels)
		depthwise.Groups = in
		net = append(net,
			depthwise, &layers.BatchNorm{Name: name + "bn1"}, relu,
			pointwise, &layers.BatchNorm{Name: name + "bn2"}, relu,
		)
		in = block.channels
	}
	return append(net, &layers.GlobalAvgPool{}, &layers.Linear{Name: "fc", Outputs: classes})
}

func conv1x1(name string, channels int) *layers.Conv2D {
	return &layers.Conv2D{Name: name, Outputs: channels, Kernel: 1, NoBias: true}
}
