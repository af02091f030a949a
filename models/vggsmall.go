package models

import "github.com/goqat/goqat/layers"

func init() {
	Register(&Spec{
		Name:   "vggsmall",
		Doc:    "VGG-small, six 3x3 convolutions of 128 to 512 channels with batch normalization and one linear layer",
		Paper:  "Zhang et al., LQ-Nets: Learned Quantization for Highly Accurate and Compact Deep Neural Networks, 2018",
		Layers: vggSmall,
	})
}

func vggSmall(classes int) layers.Sequential {
	conv := func(name string, channels int) layers.Sequential {
		return layers.Sequential{conv3x3("conv"+name, channels, 1), &layers.BatchNorm{Name: "bn" + name}, layers.ReLU{}}
	}
	pool := layers.MaxPool2D{Window: 2}
	return layers.Sequential{
		conv("1", 128), conv("2", 128), pool,
		conv("3", 256), conv("4", 256), pool,
		conv("5", 512), conv("6", 512), pool,
		layers.Flatten{}, &layers.Linear{Name: "fc", Outputs: classes},
	}
}
