package train

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/datasets/mnist"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

var wholeMNIST = sync.OnceValues(func() (datasets.Split, error) { return mnist.Load("") })

// digits returns the first images of MNIST.
func digits(t testing.TB, training, test int) datasets.Split {
	t.Helper()
	all, err := wholeMNIST()
	require.NoError(t, err)
	return datasets.Split{Train: all.Train.Head(training), Test: all.Test.Head(test)}
}

// methods parses a pair of method strings.
func methods(weights, activations string) layers.Methods {
	return layers.Methods{Weights: quantops.MustParse(weights), Activations: quantops.MustParse(activations)}
}

// smallNetwork is a net for MNIST that trains thousands of images a second on any machine.
func smallNetwork(m layers.Methods, edgeBits int, seed uint64) (*layers.Network, error) {
	root := layers.Sequential{
		&layers.Conv2D{Name: "conv1", Outputs: 4, Kernel: 5, Stride: 3}, layers.ReLU{}, layers.MaxPool2D{Window: 2},
		&layers.Conv2D{Name: "conv2", Outputs: 8, Kernel: 3, Pad: 1}, layers.ReLU{},
		layers.Flatten{},
		&layers.Linear{Name: "fc1", Outputs: 16}, layers.ReLU{},
		&layers.Linear{Name: "fc2", Outputs: 10},
	}
	layers.Quantize(root, m, edgeBits)
	return layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 28, Width: 28}, seed)
}

// normalizedNetwork is a small net for MNIST with batch normalization, in a residual block too.
func normalizedNetwork(m layers.Methods, edgeBits int, seed uint64) (*layers.Network, error) {
	root := layers.Sequential{
		&layers.Conv2D{Name: "conv1", Outputs: 4, Kernel: 5, Stride: 3, NoBias: true}, &layers.BatchNorm{}, layers.ReLU{}, layers.MaxPool2D{Window: 2},
		&layers.Residual{Body: layers.Sequential{
			&layers.Conv2D{Name: "conv2", Outputs: 4, Kernel: 3, Pad: 1, NoBias: true}, &layers.BatchNorm{}, layers.ReLU{},
		}},
		layers.Flatten{},
		&layers.Linear{Name: "fc", Outputs: 10},
	}
	layers.Quantize(root, m, edgeBits)
	return layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 28, Width: 28}, seed)
}

// depthwiseNetwork is a small net for MNIST with a depthwise layer.
func depthwiseNetwork(m layers.Methods, edgeBits int, seed uint64) (*layers.Network, error) {
	root := layers.Sequential{
		&layers.Conv2D{Name: "conv", Outputs: 8, Kernel: 5, Stride: 3, NoBias: true}, &layers.BatchNorm{}, layers.ReLU{},
		&layers.Conv2D{Name: "depthwise", Outputs: 8, Kernel: 3, Stride: 2, Groups: 8, NoBias: true}, &layers.BatchNorm{}, layers.ReLU{},
		&layers.Conv2D{Name: "pointwise", Outputs: 16, Kernel: 1, NoBias: true}, &layers.BatchNorm{}, layers.ReLU{},
		layers.Flatten{}, &layers.Linear{Name: "fc", Outputs: 10},
	}
	layers.Quantize(root, m, edgeBits)
	return layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 28, Width: 28}, seed)
}

// newSmall is smallNetwork at equal bits in all layers, calibrated on images of d.
func newSmall(t testing.TB, m layers.Methods, d *datasets.Dataset) *layers.Network {
	t.Helper()
	network, err := smallNetwork(m, 0, 1)
	require.NoError(t, err)
	require.NoError(t, Calibrate(network, d, 100))
	return network
}

// counted is a data set of n images of 2x2 pixels, all of value i in image i, with label i mod 3, and a linear network
// for it.
func counted(t testing.TB, n int) (*datasets.Dataset, *layers.Network) {
	t.Helper()
	d := &datasets.Dataset{Name: "counted", Channels: 1, Height: 2, Width: 2, Classes: []string{"a", "b", "c"}, Mean: []float32{0}, Std: []float32{1}}
	for i := range n {
		d.Labels = append(d.Labels, uint16(i%3))
		d.Pixels = append(d.Pixels, uint8(i), uint8(i), uint8(i), uint8(i))
	}
	require.NoError(t, d.Validate())
	root := layers.Sequential{layers.Flatten{}, &layers.Linear{Name: "fc", Outputs: 3}}
	network, err := layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 2, Width: 2}, 1)
	require.NoError(t, err)
	return d, network
}

// rig is an experiment with the small network, whose last built network a test can reach.
type rig struct {
	*Experiment
	network *layers.Network
}

// newRig makes an experiment of four short epochs into folder; change may alter its settings.
func newRig(t testing.TB, folder string, change func(*Config)) *rig {
	t.Helper()
	c := DefaultConfig()
	c.Model, c.Batch, c.Calibration, c.CheckpointSteps = "small", 24, 60, 2
	c.Float = PhaseConfig{Epochs: 2, LearningRate: 0.05, Schedule: "cosine"}
	c.Quantized = PhaseConfig{Epochs: 2, LearningRate: 0.02, Schedule: "cosine,warmup=0.5"}
	if change != nil {
		change(&c)
	}
	r := &rig{}
	r.Experiment = &Experiment{
		Config: c, Folder: folder, Data: digits(t, 200, 150),
		Build: func(m layers.Methods) (network *layers.Network, err error) {
			r.network, err = buildNetwork(c, m)
			return r.network, err
		},
		BuildTeacher: buildNetwork,
	}
	return r
}

// buildNetwork makes the network that a configuration names.
func buildNetwork(c Config, m layers.Methods) (*layers.Network, error) {
	switch c.Model {
	case "small":
		return smallNetwork(m, c.EdgeBits, c.Seed)
	case "normalized":
		return normalizedNetwork(m, c.EdgeBits, c.Seed)
	case "depthwise":
		return depthwiseNetwork(m, c.EdgeBits, c.Seed)
	case "stacked":
		return stackedNetwork(m, c.EdgeBits, c.Seed)
	}
	return nil, fmt.Errorf("no model %q", c.Model)
}

// complete runs an experiment to its end.
func (r *rig) complete(t testing.TB) *Result {
	t.Helper()
	result, err := r.Run(t.Context())
	require.NoError(t, err)
	return result
}

// atStep makes do the answer to step number n of a phase.
func (r *rig) atStep(phase Phase, n int, do func()) {
	r.Report = func(e Event) {
		if e.Step != nil && e.Phase == phase && e.Step.Position.Step == n {
			do()
		}
	}
}

// finished is a run that several tests look at, and none changes.
var finished struct {
	sync.Once
	folder string
	result *Result
}

// finishedRun returns the folder and the result of an experiment as newRig makes it.
func finishedRun(t *testing.T) (string, *Result) {
	t.Helper()
	finished.Do(func() {
		folder := filepath.Join(shared, "finished")
		finished.result = newRig(t, folder, nil).complete(t)
		finished.folder = folder
	})
	require.NotEmpty(t, finished.folder, "the run failed in another test")
	return finished.folder, finished.result
}
