package train

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
)

// seen returns how often each image of a counted data set is in the batch that a trainer has just used.
func seen(trainer *Trainer, times []int) {
	images := trainer.graph.images
	for lane, label := range trainer.graph.loss.labels {
		if label < 0 {
			continue
		}
		pixel := images[lane/kernel.Lanes*4*kernel.Lanes+lane%kernel.Lanes]
		times[int(math.Round(float64(pixel)*255))]++
	}
}

func TestTrainerSeesEveryImageEquallyOften(t *testing.T) {
	for _, c := range []struct {
		images, batch, epochs int
		times                 int // that each image is seen
		last                  []int
	}{
		{images: 48, batch: 16, epochs: 2, times: 2, last: []int{3, 6}},
		{images: 50, batch: 7, epochs: 7, times: 7, last: []int{7, 14, 21, 28, 35, 42, 50}},
		{images: 20, batch: 1, epochs: 2, times: 2, last: []int{20, 40}},
		{images: 5, batch: 20, epochs: 8, times: 8, last: []int{1, 2}}, // epochs without a batch of their own
	} {
		d, network := counted(t, c.images)
		times, last := make([]int, c.images), []int(nil)
		sum, steps := 0.0, 0
		trainer := &Trainer{Network: network, Data: d, Epochs: c.epochs, Batch: c.batch}
		trainer.AfterStep = func(s Step) error {
			seen(trainer, times)
			sum, steps = sum+s.Loss, steps+1
			require.Greater(t, s.Position.Step*c.batch, (s.Epoch-1)*c.images, "the epoch has begun in step %d", s.Position.Step)
			require.InDelta(t, sum/float64(steps), s.MeanLoss(), 1e-12)
			require.Equal(t, c.batch, s.Images)
			require.Equal(t, c.epochs*c.images/c.batch, s.Steps)
			if s.EpochDone {
				last = append(last, s.Position.Step)
				sum, steps = 0, 0
			}
			return nil
		}
		require.NoError(t, trainer.Run(context.Background()))
		require.Equal(t, c.last, last)
		for i, n := range times {
			require.Equal(t, c.times, n, "image %d of %d, batch %d", i, c.images, c.batch)
		}
		require.NoError(t, trainer.Close())
	}
}

// recording is a schedule and an optimizer that only take notes.
type recording struct {
	Optimizer
	progress []Progress
	rates    []float64
	names    []string
}

func (r *recording) Rate(base float64, p Progress) float64 {
	r.progress = append(r.progress, p)
	return base / float64(p.Step+1)
}

func (r *recording) String() string               { return "recording" }
func (r *recording) SetLearningRate(rate float64) { r.rates = append(r.rates, rate) }

func (r *recording) Update(parameters []Parameter) error {
	r.names = nil
	for _, p := range parameters {
		r.names = append(r.names, p.Name)
	}
	return nil
}

func TestTrainerAsksTheScheduleEachStep(t *testing.T) {
	d, network := counted(t, 25)
	r := &recording{}
	var told []float64
	trainer := Trainer{Network: network, Data: d, Epochs: 2, Batch: 10, LearningRate: 0.5, Schedule: r, Optimizer: r,
		AfterStep: func(s Step) error { told = append(told, s.LearningRate); return nil }}
	require.NoError(t, trainer.Run(context.Background()))
	require.Equal(t, []float64{0.5, 0.25, 0.5 / 3, 0.125, 0.1}, r.rates)
	require.Equal(t, r.rates, told)
	for i, p := range r.progress {
		require.Equal(t, Progress{Step: i, Steps: 5, StepsPerEpoch: 2}, p)
	}
	require.Equal(t, []string{"fc.weight", "fc.bias"}, r.names)
}

func TestTrainerDefaults(t *testing.T) {
	d, network := counted(t, 70)
	trainer := Trainer{Network: network, Data: d, Epochs: 1}
	var s Step
	trainer.AfterStep = func(now Step) error { s = now; return nil }
	require.NoError(t, trainer.Run(context.Background()))
	require.Equal(t, 64, s.Images)
	require.Equal(t, 0.01, s.LearningRate)
	require.Equal(t, &SGD{Momentum: 0.9}, &SGD{Momentum: trainer.Optimizer.(*SGD).Momentum})
	require.Equal(t, Cosine{}, trainer.Schedule)
}

func TestTrainerRefuses(t *testing.T) {
	t.Parallel()
	d, network := counted(t, 30)
	other := digits(t, 30, 1).Train
	none := d.Slice(0, 0)
	more := *d
	more.Classes = []string{"a", "b", "c", "d"}
	for want, trainer := range map[string]Trainer{
		"train: batch of -1 images: want at least 1":                                                                  {Batch: -1, Epochs: 1},
		"train: -1 epochs: want 0 or more":                                                                            {Batch: 3, Epochs: -1},
		"train: label smoothing NaN: want 0 to 1":                                                                     {Smoothing: math.NaN()},
		"train: label smoothing 1.5: want 0 to 1":                                                                     {Smoothing: 1.5},
		"train: learning rate NaN: want 0 or more":                                                                    {LearningRate: math.NaN()},
		"train: learning rate -1: want 0 or more":                                                                     {LearningRate: -1},
		"train: 2 epochs of 30 images make no batch of 64: want a smaller batch or more epochs":                       {Epochs: 2},
		"train: the network takes images of 1x2x2, mnist has 1x28x28":                                                 {Epochs: 1, Data: other},
		"train: counted has no images":                                                                                {Epochs: 1, Data: none},
		"train: the network tells 3 classes apart, counted has 4":                                                     {Epochs: 1, Data: &more},
		"train: a batch of 1073741824 images of 1x2x2 makes a tensor of more than 2^31 elements; use a smaller batch": {Batch: 1 << 30, Epochs: 1 << 26},
	} {
		trainer.Network = network
		if trainer.Data == nil {
			trainer.Data = d
		}
		require.EqualError(t, trainer.Run(context.Background()), want)
		require.NoError(t, trainer.Close(), "of a trainer that never ran")
	}
}

func TestTrainerStopsWhereItIsTold(t *testing.T) {
	d, network := counted(t, 30)
	stop := errors.New("stop")
	trainer := Trainer{Network: network, Data: d, Epochs: 3, Batch: 10, AfterStep: func(s Step) error {
		if s.Position.Step == 4 {
			return stop
		}
		return nil
	}}
	require.ErrorIs(t, trainer.Run(context.Background()), stop)
	require.Equal(t, 4, trainer.Position().Step)
	require.Equal(t, 1, trainer.Position().LossSteps, "steps of the second epoch")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, trainer.Run(ctx), ErrInterrupted)
	require.Equal(t, 4, trainer.Position().Step)
	trainer.AfterStep = nil
	require.NoError(t, trainer.Run(context.Background()))
	require.Equal(t, 9, trainer.Position().Step)
	require.NoError(t, trainer.Run(context.Background()), "nothing is left to do")
}

// poison sets a parameter to a value that spoils what comes after it.
func poison(t testing.TB, network *layers.Network, name string, value float32) {
	t.Helper()
	i := slices.IndexFunc(network.Params(), func(p *layers.Param) bool { return p.Name == name })
	require.GreaterOrEqual(t, i, 0, name)
	data := network.Params()[i].Data()
	for j := range data {
		data[j] = value
	}
}

func TestDivergenceNamesPlaceAndTime(t *testing.T) {
	d := digits(t, 100, 1).Train
	for _, layer := range []string{"conv1", "conv2", "fc2"} {
		network := newSmall(t, methods("none", "none"), d)
		trainer := Trainer{Network: network, Data: d, Epochs: 3, Batch: 20, AfterStep: func(s Step) error {
			if s.Position.Step == 7 {
				poison(t, network, layer+".weight", 3e38)
			}
			return nil
		}}
		err := trainer.Run(context.Background())
		require.Equal(t, &DivergedError{Epoch: 2, Step: 8, Layer: "layer " + layer, What: "loss"}, err)
		require.EqualError(t, err, "train: epoch 2, step 8: the loss is not finite, first in layer "+layer+"; try a lower learning rate")
		require.Equal(t, 7, trainer.Position().Step)
	}
}

// A huge learning rate ends in an error, and the parameters are those before the step that failed.
func TestHugeLearningRateDiverges(t *testing.T) {
	d := digits(t, 100, 1).Train
	for _, rate := range []float64{1e15, 3e38} {
		network := newSmall(t, methods("none", "none"), d)
		var last string
		trainer := Trainer{Network: network, Data: d, Epochs: 100, Batch: 20, LearningRate: rate, Schedule: Constant{}, AfterStep: func(Step) error {
			last = WeightsHash(network)
			return nil
		}}
		last = WeightsHash(network)
		err := trainer.Run(context.Background())
		var diverged *DivergedError
		require.ErrorAs(t, err, &diverged)
		require.Equal(t, trainer.Position().Step+1, diverged.Step)
		require.NotEmpty(t, diverged.Layer)
		require.Equal(t, last, WeightsHash(network))
	}
}

func TestLocatedNamesAParameter(t *testing.T) {
	err := located(&NonFiniteError{Parameter: "fc1.bias", What: "gradient", Index: 3}, 2, 9)
	require.Equal(t, &DivergedError{Epoch: 2, Step: 9, Layer: "fc1.bias", What: "gradient"}, err)
	require.EqualError(t, located(errors.New("cause"), 2, 9), "train: epoch 2, step 9: cause")
}

// gradients returns the gradients of all learned parameters on these images, laid out in that order.
func gradients(t *testing.T, network *layers.Network, d *datasets.Dataset, indices []int) map[string][]float64 {
	t.Helper()
	g, err := newTrainingGraph(network, len(indices), 0.1)
	require.NoError(t, err)
	defer g.machine.Close()
	d.Fill(g.images, g.loss.labels, indices)
	require.NoError(t, g.machine.RunAll())
	all := map[string][]float64{}
	for _, p := range g.parameters {
		for _, v := range p.Gradient {
			all[p.Name] = append(all[p.Name], float64(v))
		}
	}
	return all
}

// A batch of 50 leaves lanes of its last block empty. Its gradient is the mean of the gradients of its images, each
// computed alone, and does not depend on which lanes they lie in.
func TestGradientsDoNotDependOnLanes(t *testing.T) {
	d := digits(t, 50, 1).Train
	order := make([]int, 50)
	for i := range order {
		order[i] = i
	}
	for _, m := range []layers.Methods{methods("none", "none"), methods("lsq:4", "lsq:4")} {
		network := newSmall(t, m, d)
		want := gradients(t, network, d, order)
		turned := gradients(t, network, d, append(slices.Clone(order[23:]), order[:23]...))
		alone := map[string][]float64{}
		for i := range order {
			for name, g := range gradients(t, network, d, order[i:i+1]) {
				alone[name] = append(alone[name], g...)
			}
		}
		for name, w := range want {
			largest, mean := 0.0, make([]float64, len(w))
			for i, v := range alone[name] {
				mean[i%len(w)] += v / 50
				largest = max(largest, math.Abs(v))
			}
			require.NotZero(t, largest, name)
			require.InDeltaSlice(t, w, turned[name], 2e-6*largest, "%v: %s", m, name)
			require.InDeltaSlice(t, w, mean, 2e-6*largest, "%v: %s", m, name)
		}
	}
}

// Quantizers follow the images only: padded lanes hold a layer's bias, which here is larger than all of its outputs.
func TestPaddedLanesDoNotShowInRanges(t *testing.T) {
	d, _ := counted(t, 250)
	d = d.Slice(200, 205)
	for method, want := range map[string][]float64{
		"linear:8,observer=minmax": {3 - 0.4*204/255, 3 - 0.4*200/255},
		"lsq:8":                    {2 * (3 - 0.4*202/255) / math.Sqrt(255)},
	} {
		root := layers.Sequential{
			layers.Flatten{}, &layers.Linear{Name: "fc1", Outputs: 2}, layers.ReLU{},
			&layers.Linear{Name: "fc2", Outputs: 3, Methods: methods("none", method)},
		}
		network, err := layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 2, Width: 2}, 1)
		require.NoError(t, err)
		var fitted []float32
		for _, p := range network.Params() {
			switch {
			case p.Theta:
				fitted = p.Data()
			case p.Name == "fc1.weight":
				copy(p.Data(), []float32{-0.1, -0.1, -0.1, -0.1, -0.1, -0.1, -0.1, -0.1})
			case p.Name == "fc1.bias":
				copy(p.Data(), []float32{3, 3})
			}
		}
		require.NoError(t, Calibrate(network, d, 5))
		for i, w := range want {
			require.InDelta(t, w, fitted[i], 1e-5, method)
		}
		// A step of training moves ranges before it moves weights.
		trainer := Trainer{Network: network, Data: d, Epochs: 1, Batch: 5, LearningRate: 1e-9}
		require.NoError(t, trainer.Run(context.Background()))
		for i, w := range want {
			require.InDelta(t, w, fitted[i], 1e-5, method)
		}
	}
}
