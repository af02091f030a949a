package train

import (
	"fmt"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
	"gorgonia.org/gorgonia"
)

// calibrationBatch is how many images a calibration looks at together.
const calibrationBatch = 128

// Calibrate fits the quantizers of a network: those of weights to the weights, those of activations to the
// activations of the data set's first images, in floating point and in order. Codes that have been found stay; those
// that are weighted by what a layer takes in are found on the same images, layer by layer, and activations are fitted again.
func Calibrate(network *layers.Network, d *datasets.Dataset, images int) error {
	if err := fit(network, d); err != nil {
		return err
	}
	network.Complete()
	images = min(images, d.Len())
	if images < 1 {
		return fmt.Errorf("train: calibration on %d images: want at least 1", images)
	}
	if err := calibrate(network, d, images); err != nil {
		return err
	}
	found, err := findWeighted(network, d, images)
	if err != nil || !found {
		return err
	}
	return calibrate(network, d, images)
}

// calibrate fits the quantizers of activations.
func calibrate(network *layers.Network, d *datasets.Dataset, images int) error {
	pass := layers.NewPass(layers.Calibration, min(calibrationBatch, images))
	size := network.Input.Len() * kernel.Lanes
	buffer, labels := make([]float32, pass.Blocks()*size), make([]int32, pass.Blocks()*kernel.Lanes)
	if _, err := network.Forward(pass, buffer); err != nil {
		return err
	}
	machine := gorgonia.NewTapeMachine(pass.Graph)
	defer machine.Close()
	for indices := range datasets.Batches(images, pass.Images) {
		blocks := kernel.Blocks(len(indices))
		clear(buffer)
		d.Fill(buffer[:blocks*size], labels[:blocks*kernel.Lanes], indices)
		pass.Images = len(indices)
		if err := machine.RunAll(); err != nil {
			return fmt.Errorf("train: calibration: %w", err)
		}
		machine.Reset()
		pass.Calibrated()
	}
	return nil
}
