package models

import (
	"fmt"

	"github.com/goqat/goqat/layers"
)

func init() {
	for _, depth := range []int{20, 32, 44, 56} {
		registerResNet(depth, "", "identity and zero-padding shortcuts (option A)", padShortcut)
		registerResNet(depth, "b", "1x1 convolutions where shapes change (option B)", convShortcut)
	}
}

// registerResNet registers a residual network for small images: three stages of 16, 32 and 64 channels, (depth-2)/6 blocks
// of two 3x3 convolutions each, the first block of the later stages with stride 2.
func registerResNet(depth int, suffix, shortcuts string, shortcut func(name string, channels int) layers.Layer) {
	Register(&Spec{
		Name:  fmt.Sprintf("resnet%d%s", depth, suffix),
		Doc:   fmt.Sprintf("ResNet-%d for small images, %s", depth, shortcuts),
		Paper: "He et al., Deep Residual Learning for Image Recognition, 2016",
		Layers: func(classes int) layers.Sequential {
			net := layers.Sequential{conv3x3("conv1", 16, 1), &layers.BatchNorm{Name: "bn1"}, layers.ReLU{}}
			for stage, channels := range []int{16, 32, 64} {
				for block := range (depth - 2) / 6 {
					name := fmt.Sprintf("layer%d.%d", stage+1, block)
					changes := stage > 0 && block == 0
					net = append(net, basicBlock(name, channels, changes, shortcut), layers.ReLU{})
				}
			}
			return append(net, &layers.GlobalAvgPool{}, &layers.Linear{Name: "fc", Outputs: classes})
		},
	})
}

// basicBlock is two 3x3 convolutions with batch normalization beside a shortcut; where the shape changes, the first
// convolution has stride 2.
func basicBlock(name string, channels int, changes bool, shortcut func(string, int) layers.Layer) *layers.Residual {
	stride := 1
	block := &layers.Residual{}
	if changes {
		stride, block.Shortcut = 2, shortcut(name+".shortcut", channels)
	}
	block.Body = layers.Sequential{
		conv3x3(name+".conv1", channels, stride), &layers.BatchNorm{Name: name + ".bn1"}, layers.ReLU{},
		conv3x3(name+".conv2", channels, 1), &layers.BatchNorm{Name: name + ".bn2"},
	}
	return block
}

func conv3x3(name string, channels, stride int) *layers.Conv2D {
	return &layers.Conv2D{Name: name, Outputs: channels, Kernel: 3, Stride: stride, Pad: 1, NoBias: true}
}

func padShortcut(_ string, channels int) layers.Layer {
	return &layers.PadShortcut{Stride: 2, Channels: channels}
}

func convShortcut(name string, channels int) layers.Layer {
	return layers.Sequential{
		&layers.Conv2D{Name: name + ".conv", Outputs: channels, Kernel: 1, Stride: 2, NoBias: true},
		&layers.BatchNorm{Name: name + ".bn"},
	}
}
