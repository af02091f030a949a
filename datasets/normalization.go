package datasets

import (
	"fmt"
	"slices"

	"github.com/goqat/goqat/internal/registry"
)

// normalization is a Mean and a Std by channel; one value serves every channel.
type normalization struct{ mean, std []float32 }

var normalizations = registry.New[normalization]("normalization")

func init() {
	// Mean and standard deviation of CIFAR-10's training pixels.
	normalizations.Register("cifar", normalization{[]float32{.4914, .4822, .4465}, []float32{.2470, .2435, .2616}})
	// Those of ImageNet, which many published networks were trained with, CIFAR's among them.
	normalizations.Register("imagenet", normalization{[]float32{.485, .456, .406}, []float32{.229, .224, .225}})
	// Raw bytes, see PixelTable.
	normalizations.Register("none", normalization{[]float32{0}, []float32{byteStd}})
	// Bytes as [0, 1].
	normalizations.Register("unit", normalization{[]float32{0}, []float32{1}})
}

// Normalizations returns the names that Normalized knows, sorted.
func Normalizations() []string { return normalizations.Names() }

// Normalized returns the same images under another normalization, sharing Pixels and Labels. A net sees
//
//	cifar     (pixel/255 − {.4914, .4822, .4465}) / {.2470, .2435, .2616}, the default of cifar10 and cifar100
//	imagenet  (pixel/255 − {.485, .456, .406}) / {.229, .224, .225}
//	none      pixel, 0 to 255
//	unit      pixel/255, 0 to 1
//
// The first two are for three channels. An unknown name gives an error with the nearest one.
func (d *Dataset) Normalized(name string) (*Dataset, error) {
	n, err := normalizations.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("datasets: %s: %w", d.Name, err)
	}
	if len(n.mean) != 1 && len(n.mean) != d.Channels {
		return nil, fmt.Errorf("datasets: %s: normalization %q is for %d channels; the images have %d", d.Name, name, len(n.mean), d.Channels)
	}
	other := *d
	other.Mean, other.Std = slices.Clone(n.mean), slices.Clone(n.std)
	if len(n.mean) == 1 {
		other.Mean, other.Std = slices.Repeat(n.mean, d.Channels), slices.Repeat(n.std, d.Channels)
	}
	return &other, nil
}

// mustNormalize sets the Mean and Std of a registered normalization on d, which has its channels.
func (d *Dataset) mustNormalize(name string) {
	other, err := d.Normalized(name)
	if err != nil {
		panic(err)
	}
	*d = *other
}
