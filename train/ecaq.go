package train

import (
	"context"
	"fmt"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// ECAQ gives channels of a float network's activations scales of their own ([layers.Equalization]) before it is
// quantized. What a layer wants of its channels is the unit, the worth of level 1, that its quantizer of activations
// would have for each of them alone, after calibration on some images.
//
// Wang et al., "Towards Accurate Post-training Network Quantization via Bit-Split and Stitching", 2020.
type ECAQ struct {
	Activations quantops.Method
	Data        *datasets.Dataset // its first images are looked at
	Images      int
}

// Run changes the network's weights and normalizations, and nothing of what it computes; it returns how many scales are
// not 1. When ctx ends it returns [ErrInterrupted].
func (e *ECAQ) Run(ctx context.Context, float *layers.Network) (channels int, err error) {
	equalization, err := layers.NewEqualization(float)
	if err != nil {
		return 0, err
	}
	units, err := e.measure(ctx, float)
	if err != nil {
		return 0, err
	}
	return equalization.Apply(units), nil
}

// measure returns the unit of every channel that a layer with weights takes in, by the layer's name; 0 where it holds
// nothing.
func (e *ECAQ) measure(ctx context.Context, float *layers.Network) (map[string][]float64, error) {
	images := min(e.Images, e.Data.Len())
	if images < 1 {
		return nil, fmt.Errorf("train: scales of channels on %d images: want at least 1", images)
	}
	if err := fit(float, e.Data); err != nil {
		return nil, err
	}
	t, err := newTapped(float, min(calibrationBatch, images), nil)
	if err != nil {
		return nil, err
	}
	defer t.machine.Close()
	return e.units(ctx, t, images)
}

// channelFit is the quantizer of one channel by itself.
type channelFit struct {
	quantizer quantops.Quantizer
	theta     []float32
	low, high float32
}

// units runs the images through the network.
func (e *ECAQ) units(ctx context.Context, t *tapped, images int) (map[string][]float64, error) {
	fits := make([][]channelFit, len(t.taps))
	for i, tap := range t.taps {
		var err error
		if fits[i], err = e.fits(tap); err != nil {
			return nil, err
		}
	}
	batches := 0
	for indices := range datasets.Batches(images, t.pass.Images) {
		if ctx.Err() != nil {
			return nil, ErrInterrupted
		}
		if err := t.run(e.Data, indices); err != nil {
			return nil, err
		}
		for i, tap := range t.taps {
			kernel.Parallel(len(fits[i]), func(c int) {
				x, extent := tap.AppendChannel(nil, c, len(indices))
				fits[i][c].add(x, extent, batches)
			})
		}
		batches++
	}
	units := map[string][]float64{}
	for i, tap := range t.taps {
		for c := range fits[i] {
			units[tap.Layer()] = append(units[tap.Layer()], fits[i][c].unit())
		}
	}
	return units, nil
}

// fits makes a quantizer for every channel.
func (e *ECAQ) fits(tap *layers.Tap) ([]channelFit, error) {
	fits := make([]channelFit, tap.Channels())
	for c := range fits {
		q, err := e.Activations.Quantizer(quantops.Target{Role: quantops.Activations, Channels: 1, Size: 1, Signed: tap.Signed()})
		if err != nil {
			return nil, err
		}
		fits[c] = channelFit{quantizer: q, theta: make([]float32, len(q.Theta().Columns))}
	}
	return fits, nil
}

func (f *channelFit) add(x []float32, e quantops.Extent, batches int) {
	f.quantizer.Fit(f.theta, x, e, batches)
	low, high := kernel.Range(x, e)
	f.low, f.high = min(f.low, low), max(f.high, high)
}

func (f *channelFit) unit() float64 {
	if f.low == 0 && f.high == 0 {
		return 0
	}
	var unit [1]float32
	f.quantizer.Units(unit[:], f.theta)
	return float64(unit[0])
}
