// Package datasets holds labelled images in memory and hands them to training and evaluation in batches.
//
// Images stay raw bytes; a per-channel table of 256 values normalizes them on the way into a batch, and the same
// table tells an integer engine what each byte is worth. Anything that fills a Dataset and passes its Validate can be
// trained on; data sets with a name register a Spec.
package datasets

import (
	"fmt"
	"math"
	"slices"

	"github.com/goqat/goqat/internal/random"
)

// maxElements bounds a data set's pixels, so that every index fits an int32.
const maxElements = 1<<31 - 1

// Dataset is n labelled images of one size. To use data of your own, fill the fields and call Validate.
type Dataset struct {
	Name                    string
	Channels, Height, Width int
	Classes                 []string  // class names by label
	Pixels                  []uint8   // [n][Channels][Height][Width]
	Labels                  []uint16  // [n], each below len(Classes)
	Mean, Std               []float32 // [Channels], of pixel/255: the input of a net is (pixel/255 − Mean)/Std
}

// Validate reports the first thing that is wrong with the fields. All other methods rely on it.
func (d *Dataset) Validate() error {
	for _, check := range []func() error{d.validateSizes, d.validateLabels, d.validateNormalization} {
		if err := check(); err != nil {
			return fmt.Errorf("datasets: %s: %w", d.Name, err)
		}
	}
	return nil
}

func (d *Dataset) validateSizes() error {
	size := 1
	for _, dimension := range []struct {
		name string
		n    int
	}{{"images", d.Len()}, {"Channels", d.Channels}, {"Height", d.Height}, {"Width", d.Width}} {
		if dimension.n < 1 {
			return fmt.Errorf("%d %s; at least 1 is needed", dimension.n, dimension.name)
		}
		if dimension.n > maxElements/size {
			return fmt.Errorf("%d images of %d×%d×%d are more than %d pixels", d.Len(), d.Channels, d.Height, d.Width, maxElements)
		}
		size *= dimension.n
	}
	if len(d.Pixels) != size {
		return fmt.Errorf("%d pixels; %d labels and images of %d×%d×%d need %d", len(d.Pixels), d.Len(), d.Channels, d.Height, d.Width, size)
	}
	return nil
}

func (d *Dataset) validateLabels() error {
	for i, label := range d.Labels {
		if int(label) >= len(d.Classes) {
			return fmt.Errorf("label %d of image %d; there are %d classes", label, i, len(d.Classes))
		}
	}
	return nil
}

func (d *Dataset) validateNormalization() error {
	if len(d.Mean) != d.Channels || len(d.Std) != d.Channels {
		return fmt.Errorf("%d values of Mean and %d of Std for %d channels", len(d.Mean), len(d.Std), d.Channels)
	}
	for c := range d.Channels {
		if !(d.Std[c] > 0 && d.Std[c] <= math.MaxFloat32) {
			return fmt.Errorf("standard deviation %g of channel %d; it must be above 0 and finite", d.Std[c], c)
		}
		for _, x := range d.PixelTable(c) {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return fmt.Errorf("mean %g and standard deviation %g of channel %d give pixels that are no finite number", d.Mean[c], d.Std[c], c)
			}
		}
	}
	return nil
}

// Len returns the number of images.
func (d *Dataset) Len() int { return len(d.Labels) }

// imageSize returns the number of pixels of one image.
func (d *Dataset) imageSize() int { return d.Channels * d.Height * d.Width }

// Image returns image i as [Channels][Height][Width], a part of Pixels. It panics if i is not in [0, Len()).
func (d *Dataset) Image(i int) []uint8 {
	size := d.imageSize()
	return d.Pixels[i*size : (i+1)*size : (i+1)*size]
}

// Slice returns the images [from, to), sharing Pixels and Labels. It panics, as a slice expression does, unless
// 0 <= from <= to <= Len().
func (d *Dataset) Slice(from, to int) *Dataset {
	size := d.imageSize()
	part := *d
	part.Labels = d.Labels[from:to:to]
	part.Pixels = d.Pixels[from*size : to*size : to*size]
	return &part
}

// Head returns the first n images, or all if there are fewer, sharing Pixels and Labels.
func (d *Dataset) Head(n int) *Dataset { return d.Slice(0, max(0, min(n, d.Len()))) }

// SplitValidation draws n images, 0 < n < Len(), by the random stream "validation" of the seed. They make up
// validation and the others train, both copies in the original order.
func (d *Dataset) SplitValidation(n int, seed uint64) (train, validation *Dataset, err error) {
	if n < 1 || n >= d.Len() {
		return nil, nil, fmt.Errorf("datasets: %s: a validation split of %d images; 1 to %d are possible", d.Name, n, d.Len()-1)
	}
	order := random.New(seed, "validation").Permutation(d.Len())
	return d.subset(order[n:]), d.subset(order[:n]), nil
}

// subset copies the images of these indices, which it sorts.
func (d *Dataset) subset(indices []int) *Dataset {
	slices.Sort(indices)
	part := *d
	part.Labels = make([]uint16, 0, len(indices))
	part.Pixels = make([]uint8, 0, len(indices)*d.imageSize())
	for _, i := range indices {
		part.Labels = append(part.Labels, d.Labels[i])
		part.Pixels = append(part.Pixels, d.Image(i)...)
	}
	return &part
}
