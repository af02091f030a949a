package models

import (
	"fmt"

	"github.com/goqat/goqat/layers"
)

func init() {
	for _, depth := range []int{20, 32, 44, 56} {
		registerResNet(depth, "", "identity and zero-padding shortcuts (option A)", padShortcut, normThenReLU)
		registerResNet(depth, "b", "1x1 convolutions where shapes change (option B)", convShortcut, normThenReLU)
		registerResNet(depth, "p", "zero-padding shortcuts and convolution, parametric rectifier, normalization, so that activations have signs", padShortcut, preluThenNorm)
	}
}

// registerResNet registers a residual network for small images: three stages of 16, 32 and 64 channels, (depth-2)/6 blocks
// of two 3x3 convolutions each, the first block of the later stages with stride 2.
func registerResNet(depth int, suffix, shortcuts string, shortcut func(name string, channels int) layers.Layer, b activation) {
	Register(&Spec{
		Name:  fmt.Sprintf("resnet%d%s", depth, suffix),
		Doc:   fmt.Sprintf("ResNet-%d for small images, %s", depth, shortcuts),
		Paper: "He et al., Deep Residual Learning for Image Recognition, 2016",
		Layers: func(classes int) layers.Sequential {
			net := append(layers.Sequential{conv3x3("conv1", 16, 1)}, b.inside("", "1")...)
			for stage, channels := range []int{16, 32, 64} {
				for block := range (depth - 2) / 6 {
					name := fmt.Sprintf("layer%d.%d", stage+1, block)
					changes := stage > 0 && block == 0
					net = append(append(net, basicBlock(name, channels, changes, shortcut, b)), b.afterSum...)
				}
			}
			return append(net, &layers.GlobalAvgPool{}, &layers.Linear{Name: "fc", Outputs: classes})
		},
	})
}

// activation is what follows a convolution of a residual network.
type activation struct {
	inside   func(block, number string) layers.Sequential // after the first convolution of a block, or of the network
	last     func(block, number string) layers.Sequential // after the last one, before the sum
	afterSum layers.Sequential
}

var (
	// normThenReLU is that of the paper.
	normThenReLU = activation{
		inside: func(block, number string) layers.Sequential {
			return layers.Sequential{&layers.BatchNorm{Name: block + "bn" + number}, layers.ReLU{}}
		},
		last: func(block, number string) layers.Sequential {
			return layers.Sequential{&layers.BatchNorm{Name: block + "bn" + number}}
		},
		afterSum: layers.Sequential{layers.ReLU{}},
	}
	// preluThenNorm is for activations of few bits, for which rectified ones would leave one sign.
	preluThenNorm = activation{inside: preluNorm, last: preluNorm}
)

func preluNorm(block, number string) layers.Sequential {
	return layers.Sequential{&layers.PReLU{Name: block + "prelu" + number}, &layers.BatchNorm{Name: block + "bn" + number}}
}

// basicBlock is two 3x3 convolutions with batch normalization beside a shortcut; where the shape changes, the first
// convolution has stride 2.
func basicBlock(name string, channels int, changes bool, shortcut func(string, int) layers.Layer, b activation) *layers.Residual {
	stride := 1
	block := &layers.Residual{}
	if changes {
		stride, block.Shortcut = 2, shortcut(name+".shortcut", channels)
	}
	body := append(layers.Sequential{conv3x3(name+".conv1", channels, stride)}, b.inside(name+".", "1")...)
	body = append(body, conv3x3(name+".conv2", channels, 1))
	block.Body = append(body, b.last(name+".", "2")...)
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
