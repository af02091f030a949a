package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/quantops"
	"github.com/goqat/goqat/train"
)

// printLosses is the environment variable that makes a test print the losses of ten steps.
const printLosses = "GOQAT_TEST_PRINT_LOSSES"

// tenLosses are the losses of ten steps of ResNet-20 with lsq:4 weights and activations on noise, 35 images of 12×12 a
// step, in the bits of float64.
var tenLosses = strings.Fields(`0x1.635798p+01 0x1.828ffap+01 0x1.9fca36p+01 0x1.5b865p+01 0x1.4f3984p+01
	0x1.719f1ep+01 0x1.35490ep+01 0x1.53d718p+01 0x1.512ecp+01 0x1.79d9bap+01`)

// TestPrintLosses does the ten steps in a process of its own, where GOQAT_SIMD and GOMAXPROCS have been set.
func TestPrintLosses(t *testing.T) {
	if os.Getenv(printLosses) == "" {
		t.Skip("part of TestTenLossesOfResNet20")
	}
	in := layers.Shape{Channels: 3, Height: 12, Width: 12, Signed: true}
	method := quantops.MustParse("lsq:4")
	net, err := models.New("resnet20b", models.Options{Input: in, Classes: 10, EdgeBits: 8, Seed: 1, Methods: layers.Methods{Weights: method, Activations: method}})
	require.NoError(t, err)
	d := noise(70, in)
	require.NoError(t, train.Calibrate(net, d, 32))
	trainer := &train.Trainer{Network: net, Data: d, Epochs: 5, Batch: 35, LearningRate: 0.05, Augmentation: datasets.Augmentation{Flip: true}, Seed: 1,
		AfterStep: func(s train.Step) error {
			fmt.Printf("loss %x\n", s.Loss)
			return nil
		}}
	require.NoError(t, trainer.Run(context.Background()))
	require.NoError(t, trainer.Close())
}

// noise returns images of random pixels with random labels.
func noise(images int, in layers.Shape) *datasets.Dataset {
	d := &datasets.Dataset{Name: "noise", Channels: in.Channels, Height: in.Height, Width: in.Width,
		Pixels: make([]uint8, images*in.Len()), Labels: make([]uint16, images), Mean: []float32{0.5, 0.5, 0.5}, Std: []float32{0.25, 0.25, 0.25}}
	for i := range 10 {
		d.Classes = append(d.Classes, fmt.Sprint(i))
	}
	s := random.New(1, "noise")
	for i := range d.Pixels {
		d.Pixels[i] = uint8(s.Below(256))
	}
	for i := range d.Labels {
		d.Labels[i] = uint16(s.Below(10))
	}
	return d
}

// Training takes the same steps on every path and any number of threads: with a block for each thread or not.
func TestTenLossesOfResNet20(t *testing.T) {
	t.Parallel()
	runs := map[string][]string{"avx512": {"1", "2", "3"}, "avx2": {"1", "2"}, "portable": {"1", "2"}}
	best := slices.Index(paths, kernel.Path())
	for _, path := range paths[best:] {
		for _, threads := range runs[path] {
			requireTenLosses(t, path, threads)
		}
	}
}

// paths are the kernels' paths from the best down.
var paths = []string{"avx512", "avx2", "portable"}

func requireTenLosses(t *testing.T, path, threads string) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run", "^TestPrintLosses$")
	child.Env = append(os.Environ(), printLosses+"=1", "GOQAT_SIMD="+path, "GOMAXPROCS="+threads)
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var losses []string
	for _, m := range regexp.MustCompile(`loss (\S+)`).FindAllSubmatch(out, -1) {
		losses = append(losses, string(m[1]))
	}
	require.Equal(t, tenLosses, losses, "%s, %s threads", path, threads)
}
