package models

import "github.com/goqat/goqat/layers"

func init() {
	Register(&Spec{
		Name:   "resnet8",
		Doc:    "ResNet-8 of the MLPerf Tiny benchmark, three residual blocks of 16, 32 and 64 channels, 78,186 parameters on 32x32 images",
		Paper:  "Banbury et al., MLPerf Tiny Benchmark, 2021",
		Layers: resnet8,
	})
}

// resnet8 keeps to the reference model, written in Keras: convolutions have a bias and "same" padding, batch
// normalization adds 1e-3, and the 1x1 convolutions of shortcuts are not normalized. The mean over its final 8x8 is one over all.
func resnet8(classes int) layers.Sequential {
	relu := layers.ReLU{}
	conv := func(name string, channels, size, stride int) layers.Layer {
		return &layers.Conv2D{Name: name, Outputs: channels, Kernel: size, Stride: stride, Same: true}
	}
	bn := func(name string) layers.Layer { return &layers.BatchNorm{Name: name, Epsilon: 1e-3} }
	block := func(name string, channels, stride int) *layers.Residual {
		r := &layers.Residual{Body: layers.Sequential{
			conv(name+".conv1", channels, 3, stride), bn(name + ".bn1"), relu,
			conv(name+".conv2", channels, 3, 1), bn(name + ".bn2"),
		}}
		if stride > 1 {
			r.Shortcut = conv(name+".shortcut.conv", channels, 1, stride)
		}
		return r
	}
	return layers.Sequential{
		conv("conv1", 16, 3, 1), bn("bn1"), relu,
		block("layer1.0", 16, 1), relu,
		block("layer2.0", 32, 2), relu,
		block("layer3.0", 64, 2), relu,
		&layers.GlobalAvgPool{}, &layers.Linear{Name: "fc", Outputs: classes},
	}
}
