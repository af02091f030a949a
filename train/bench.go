package train

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/layers"
)

// StepCost is what the steps of a benchmark took.
type StepCost struct {
	Seconds     []float64 // of each step
	Bytes       float64   // allocated on the heap, mean of the steps
	Allocations float64   // mean of the steps
}

// Steps before those that are timed: so many, and for so long, since the first ones of a small network also pay for memory that
// is new to the process, and for what ran before it.
const (
	warmUp     = 3
	warmUpTime = 200 * time.Millisecond
)

// BenchTraining times steps of training on one batch of random images and labels. A step is loss, backward pass and
// update by SGD (rate 0.01, momentum 0.9, weight decay 10⁻⁴); filling in the images is not part of it. A quantized
// network is calibrated on the batch's first images. The network's parameters change.
func BenchTraining(ctx context.Context, network *layers.Network, batch, steps int) (StepCost, error) {
	d, err := prepareBench(network, batch, steps)
	if err != nil {
		return StepCost{}, err
	}
	g, err := newTrainingGraph(network, batch, 0)
	if err != nil {
		return StepCost{}, err
	}
	defer g.machine.Close()
	d.Fill(g.images, g.loss.labels, upTo(batch))
	optimizer := &SGD{Momentum: 0.9, WeightDecay: 1e-4}
	optimizer.SetLearningRate(0.01)
	done := 0
	return timeSteps(ctx, steps, func() error {
		network.Anneal(layers.Annealing{Temperature: 1, Step: done})
		done++
		if _, err := g.step(optimizer); err != nil {
			return located(err, done, 1) // the batch is all there is: each step is an epoch
		}
		return nil
	})
}

// BenchEvaluation times forward passes of the network in evaluation mode, from one batch of random images to logits.
// A quantized network is calibrated on the batch's first images.
func BenchEvaluation(ctx context.Context, network *layers.Network, batch, steps int) (StepCost, error) {
	d, err := prepareBench(network, batch, steps)
	if err != nil {
		return StepCost{}, err
	}
	e, err := NewEvaluator(network, batch)
	if err != nil {
		return StepCost{}, err
	}
	defer e.Close()
	if err := e.pass.Refresh(); err != nil {
		return StepCost{}, err
	}
	d.Fill(e.images, e.labels, upTo(batch))
	return timeSteps(ctx, steps, func() error {
		defer e.machine.Reset()
		return e.machine.RunAll()
	})
}

// prepareBench returns the batch of a benchmark, on whose first images it has calibrated a quantized network. These are
// few, so that memory is what steps need.
func prepareBench(network *layers.Network, batch, steps int) (*datasets.Dataset, error) {
	if batch < 1 || steps < 1 {
		return nil, fmt.Errorf("train: benchmark of %d steps of %d images: want at least 1 of each", steps, batch)
	}
	if _, err := blocksOf(network, batch); err != nil {
		return nil, err
	}
	d, err := randomImages(network, batch)
	if err != nil || !network.Quantized() {
		return d, err
	}
	return d, Calibrate(network, d, kernel.Lanes)
}

// randomImages makes a batch of images that the network takes, with labels that it tells apart.
func randomImages(network *layers.Network, batch int) (*datasets.Dataset, error) {
	in, classes := network.Input, network.Output.Len()
	mean, deviation := float32(0), float32(1)
	if in.Signed {
		mean, deviation = 0.5, 0.25
	}
	d := &datasets.Dataset{
		Name: "random images", Channels: in.Channels, Height: in.Height, Width: in.Width,
		Pixels: make([]uint8, batch*in.Len()), Labels: make([]uint16, batch),
		Mean: slices.Repeat([]float32{mean}, in.Channels), Std: slices.Repeat([]float32{deviation}, in.Channels),
	}
	for i := range classes {
		d.Classes = append(d.Classes, strconv.Itoa(i))
	}
	stream := random.New(1, "bench")
	for i := range d.Pixels {
		d.Pixels[i] = uint8(stream.Below(256))
	}
	for i := range d.Labels {
		d.Labels[i] = uint16(stream.Below(uint64(classes)))
	}
	return d, d.Validate()
}

// upTo returns 0 … n-1.
func upTo(n int) []int {
	indices := make([]int, n)
	for i := range indices {
		indices[i] = i
	}
	return indices
}

// timeSteps does the steps, after some to warm up. When ctx ends it returns [ErrInterrupted].
func timeSteps(ctx context.Context, steps int, step func() error) (StepCost, error) {
	cost := StepCost{Seconds: make([]float64, steps)}
	var before, after runtime.MemStats
	runtime.GC() // so that no step pays for the garbage of what came before
	timed := func() (time.Duration, error) {
		if ctx.Err() != nil {
			return 0, ErrInterrupted
		}
		start := time.Now()
		err := step()
		return time.Since(start), err
	}
	for i, spent := 0, time.Duration(0); i < warmUp || spent < warmUpTime; i++ {
		took, err := timed()
		if err != nil {
			return StepCost{}, err
		}
		spent += took
	}
	runtime.ReadMemStats(&before)
	for i := range cost.Seconds {
		took, err := timed()
		if err != nil {
			return StepCost{}, err
		}
		cost.Seconds[i] = took.Seconds()
	}
	runtime.ReadMemStats(&after)
	cost.Bytes = float64(after.TotalAlloc-before.TotalAlloc) / float64(steps)
	cost.Allocations = float64(after.Mallocs-before.Mallocs) / float64(steps)
	return cost, nil
}
