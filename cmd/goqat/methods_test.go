package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
	"github.com/goqat/goqat/train"
)

// Every method trains LeNet-5 for an epoch and its integers do what training did. With the build tag everybits it does so
// at all of its bits.
func TestEveryMethodTrains(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a network for every method")
	}
	if kernel.Path() == "portable" {
		t.Skip("portable kernels, which other tests hold to the same bits, would take an hour")
	}
	folder := t.TempDir()
	float := filepath.Join(folder, "float")
	succeed(t, "train", "--weights", "none", "--acts", "none", "--float-epochs", "2", "--epochs", "0", "--out", float)
	for _, pair := range methodPairs() {
		t.Run(pair.name, func(t *testing.T) {
			out := filepath.Join(folder, strings.ReplaceAll(pair.name, ":", ""))
			succeed(t, "train", "--init", float, "--float-epochs", "0", "--epochs", "1", "--weights", pair.weights, "--acts", pair.activations, "--out", out)
			text, err := os.ReadFile(filepath.Join(out, "result.json"))
			require.NoError(t, err)
			var r train.Result
			require.NoError(t, json.Unmarshal(text, &r))
			require.GreaterOrEqual(t, *r.Accuracy.Integer, pair.floor)
			require.Equal(t, *r.Accuracy.FakeQuant, *r.Accuracy.Integer)
			require.Equal(t, 1.0, *r.Agreement)
			require.Zero(t, *r.LogitDifference)
			t.Logf("weights %s, activations %s: accuracy %.4f, agreement %v, largest difference of logits %v, %d bytes",
				pair.weights, pair.activations, *r.Accuracy.Integer, *r.Agreement, *r.LogitDifference, *r.Bytes.Integer)
		})
	}
}

// methodPair is a method in the roles that it has, with another one in a role that it lacks.
type methodPair struct {
	name, weights, activations string
	floor                      float64 // accuracy to reach
}

// codebookFloors are codebooks without bits, with vectors that divide the weights of LeNet-5.
var codebookFloors = map[string]struct {
	weights  string
	accuracy float64
}{"pq": {"pq:d=5", 0.95}, "vq": {"vq", 0.5}}

func methodPairs() []methodPair {
	var pairs []methodPair
	for _, s := range quantops.All() {
		if floor, ok := codebookFloors[s.Name]; ok {
			pairs = append(pairs, methodPair{s.Name, floor.weights, "lsq:8", floor.accuracy})
		}
		usual := min(4, max(s.Weights.Max, s.Activations.Max))
		for bits := range 17 {
			if (everyBits || bits == usual) && (hasBits(s.Weights, bits) || hasBits(s.Activations, bits)) {
				pairs = append(pairs, newMethodPair(s, bits))
			}
		}
	}
	return pairs
}

func hasBits(b quantops.Bits, bits int) bool { return 0 < bits && b.Min <= bits && bits <= b.Max }

func newMethodPair(s *quantops.Spec, bits int) methodPair {
	name := fmt.Sprintf("%s:%d", s.Name, bits)
	pair := methodPair{name, name, name, 0.97}
	if bits <= 2 {
		pair.floor = 0.94
	}
	if !hasBits(s.Weights, bits) {
		pair.weights = fmt.Sprintf("dorefa:%d", max(bits, 2))
	}
	if !hasBits(s.Activations, bits) {
		pair.activations = fmt.Sprintf("lsq:%d", max(bits, 2))
	}
	return pair
}
