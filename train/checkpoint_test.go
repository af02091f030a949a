package train

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/safetensors"
	"github.com/goqat/goqat/layers"
)

// sampleCheckpoint has something in every field, and values that need every bit.
func sampleCheckpoint() *Checkpoint {
	return &Checkpoint{
		Config: "model: \"x\"\n# ünïcode\n", Phase: QuantizedPhase, Position: Position{Step: 123, LossSum: 0.1 + 0.2, LossSteps: 7},
		Accuracy: 1.0 / 3, Seconds: 12.5, Trained: Speed{Images: 99, Seconds: 0.1},
		Metrics: []Metric{{Phase: "float", Epoch: 1, Step: 3, Loss: 5e-324, LearningRate: 1e300, Scored: "test", Accuracy: 0.5, EvaluationLoss: 2}},
		Params: []Tensor{
			{"conv1.bias", []int{2}, []float32{1, float32(math.Copysign(0, -1))}},
			{"conv1.weight", []int{2, 1, 1, 2}, []float32{1e-45, -3.4e38, 0.1, 4}},
		},
		Optimizer: []State{
			{Name: "bias_powers/conv1.bias", Steps: math.MaxUint64, Float64: []float64{0.1, 1e-300}},
			{Name: "first/conv1.bias", Steps: math.MaxUint64, Float32: []float32{5, 6}},
		},
	}
}

func TestCheckpointRoundTrip(t *testing.T) {
	t.Parallel()
	want := sampleCheckpoint()
	path := filepath.Join(t.TempDir(), "c")
	require.NoError(t, want.Save(path))
	got, err := LoadCheckpoint(path)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.True(t, math.Signbit(float64(got.Params[0].Data[1])), "-0 stays -0")
	a, err := want.Encode()
	require.NoError(t, err)
	b, err := got.Encode()
	require.NoError(t, err)
	require.Equal(t, a, b)
}

// rewritten returns a checkpoint's file with its metadata or tensors changed, and a right checksum where it says so.
func rewritten(t testing.TB, resealed bool, change func(f *safetensors.File)) []byte {
	t.Helper()
	data, err := sampleCheckpoint().Encode()
	require.NoError(t, err)
	file, err := safetensors.Decode(data)
	require.NoError(t, err)
	change(file)
	if resealed {
		file.Metadata["sha256"] = checksum(file.Metadata["state"], file.Tensors)
	}
	data, err = safetensors.Encode(file)
	require.NoError(t, err)
	return data
}

func TestDamagedCheckpoints(t *testing.T) {
	t.Parallel()
	good, err := sampleCheckpoint().Encode()
	require.NoError(t, err)
	flip := func(at int) []byte {
		data := bytes.Clone(good)
		data[at] ^= 1
		return data
	}
	const damaged = "train: checkpoint: its checksum is wrong: the file is damaged"
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":                {nil, "train: checkpoint: it is not a whole safetensors file: safetensors: 0 bytes are too short for a header length"},
		"text":                 {[]byte("batch: 64\nepochs: 3\n"), "train: checkpoint: it is not a whole safetensors file: safetensors: header of "},
		"truncated header":     {good[:50], "train: checkpoint: it is not a whole safetensors file: safetensors: header of "},
		"truncated data":       {good[:len(good)-1], "train: checkpoint: it is not a whole safetensors file: safetensors: tensor "},
		"longer":               {append(bytes.Clone(good), 0), "train: checkpoint: it is not a whole safetensors file: safetensors: "},
		"flipped bit of data":  {flip(len(good) - 1), damaged},
		"flipped bit of state": {flip(bytes.Index(good, []byte("LossSum"))), damaged},
		"flipped bit of hash":  {flip(bytes.Index(good, []byte("sha256")) + 10), damaged},
		"no checkpoint":        {rewritten(t, true, func(f *safetensors.File) { delete(f.Metadata, "format") }), "train: checkpoint: it is a safetensors file but no checkpoint of goqat"},
		"another version":      {rewritten(t, true, func(f *safetensors.File) { f.Metadata["version"] = "2" }), `train: checkpoint: version "2"; this program reads version 1`},
		"renamed tensor":       {rewritten(t, false, func(f *safetensors.File) { f.Tensors[0].Name = "parameter/x" }), damaged},
		"reshaped tensor":      {rewritten(t, false, func(f *safetensors.File) { f.Tensors[1].Shape = append(f.Tensors[1].Shape, 1) }), damaged},
		"state is no JSON":     {rewritten(t, true, func(f *safetensors.File) { f.Metadata["state"] = "{" }), "train: checkpoint: state: unexpected end of JSON input"},
		"unknown phase":        {rewritten(t, true, func(f *safetensors.File) { f.Metadata["state"] = `{"phase": 2}` }), "train: checkpoint: its position, step 0 of phase "},
		"negative step":        {rewritten(t, true, func(f *safetensors.File) { f.Metadata["state"] = `{"position": {"Step": -1}}` }), "train: checkpoint: its position, step -1 of phase "},
		"stray tensor":         {rewritten(t, true, func(f *safetensors.File) { f.Tensors[0].Name = "x" }), `train: checkpoint: tensor "x" is neither a parameter nor the optimizer's`},
		"wrong type": {rewritten(t, true, func(f *safetensors.File) {
			f.Tensors = append(f.Tensors, safetensors.FromInt32("parameter/z", []int{1}, []int32{1}))
		}), `train: checkpoint: safetensors: tensor "parameter/z" holds I32, not F32`},
		"wrong type of state": {rewritten(t, true, func(f *safetensors.File) {
			f.Tensors = append(f.Tensors, safetensors.FromInt32("optimizer/z", []int{1}, []int32{1}))
		}), `train: checkpoint: safetensors: tensor "optimizer/z" holds I32, not F32`},
		"not a number": {rewritten(t, true, func(f *safetensors.File) {
			f.Tensors = append(f.Tensors, safetensors.FromFloat32("parameter/z", []int{2}, []float32{1, float32(math.NaN())}))
		}), `train: checkpoint: parameter "z" is NaN or Inf at element 1`},
	} {
		_, err := DecodeCheckpoint(c.data)
		var wrong *CheckpointError
		require.ErrorAs(t, err, &wrong, name)
		require.True(t, strings.HasPrefix(err.Error(), c.want), "%s: %v", name, err)
		require.NotContains(t, err.Error(), "\n", name)

		path := filepath.Join(t.TempDir(), "c")
		require.NoError(t, os.WriteFile(path, c.data, 0o644))
		_, err = LoadCheckpoint(path)
		require.ErrorAs(t, err, &wrong, name)
		require.True(t, strings.HasSuffix(err.Error(), " ("+path+")"), "%s: %v", name, err)
	}
}

func TestLoadCheckpointRefuses(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	_, err := LoadCheckpoint(folder)
	require.EqualError(t, err, "train: "+folder+" is not a checkpoint file")
	_, err = LoadCheckpoint(os.DevNull)
	require.EqualError(t, err, "train: "+os.DevNull+" is not a checkpoint file")
	_, err = LoadCheckpoint(filepath.Join(folder, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
	large := filepath.Join(folder, "large")
	require.NoError(t, os.WriteFile(large, nil, 0o644))
	if err := os.Truncate(large, maxCheckpoint+1); err == nil { // a sparse file, where the disk can
		_, err = LoadCheckpoint(large)
		require.EqualError(t, err, "train: "+large+" is not a checkpoint file")
	}
}

// What can't be saved leaves the file that was there.
func TestFailedSaveKeepsTheOldFile(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, "c")
	good := sampleCheckpoint()
	require.NoError(t, good.Save(path))
	before := files(t, folder)
	bad := sampleCheckpoint()
	bad.Metrics[0].Loss = math.NaN()
	var wrong *CheckpointError
	require.ErrorAs(t, bad.Save(path), &wrong)
	bad = sampleCheckpoint()
	bad.Params = append(bad.Params, bad.Params[0])
	require.ErrorAs(t, bad.Save(path), &wrong)
	require.ErrorContains(t, good.Save(filepath.Join(path, "below")), "train: atomicfile: write ")
	require.Equal(t, before, files(t, folder))
}

// A folder stands where the checkpoint should go: the run ends with an error that says what is lost.
func TestInterruptedRunThatCanNotSave(t *testing.T) {
	folder := t.TempDir()
	r := newRig(t, folder, func(c *Config) { c.CheckpointSteps = 0 })
	ctx, cancel := context.WithCancel(t.Context())
	r.atStep(FloatPhase, 2, func() {
		require.NoError(t, os.MkdirAll(filepath.Join(folder, CheckpointFile, "taken"), 0o755))
		cancel()
	})
	_, err := r.Run(ctx)
	require.ErrorContains(t, err, "train: interrupted, and what was trained since the last checkpoint is lost: train: atomicfile: write ")
	require.NotErrorIs(t, err, ErrInterrupted)
	require.NotContains(t, err.Error(), "\n")
}

func TestRestoreDemandsEveryParameter(t *testing.T) {
	t.Parallel()
	build := func(m layers.Methods) (*layers.Network, error) { return smallNetwork(m, 0, 1) }
	network, err := build(methods("lsq:4", "lsq:4"))
	require.NoError(t, err)
	text, err := DefaultConfig().Encode()
	require.NoError(t, err)
	fresh := func() *Checkpoint {
		return &Checkpoint{Config: string(text), Phase: QuantizedPhase, Params: snapshot(network)}
	}
	again, err := fresh().Network(build)
	require.NoError(t, err)
	require.Equal(t, WeightsHash(network), WeightsHash(again))
	for want, spoil := range map[string]func(*Checkpoint){
		`train: checkpoint: it has no parameter "conv1.weight"`:                                     func(c *Checkpoint) { c.Params = c.Params[1:] },
		`train: checkpoint: parameter "conv1.weight" has shape [4 25]; the network's has [4 1 5 5]`: func(c *Checkpoint) { c.Params[0].Shape = []int{4, 25} },
		"train: checkpoint: train: batch of 0 images: want 1 to 1048576":                            func(c *Checkpoint) { c.Config = "batch: 0" },
		"train: checkpoint: train: configuration: line 1: want settings, not `x`":                   func(c *Checkpoint) { c.Config = "x" },
	} {
		c := fresh()
		spoil(c)
		_, err := c.Network(build)
		var wrong *CheckpointError
		require.ErrorAs(t, err, &wrong)
		require.EqualError(t, err, want)
	}
}

// The hash is over names in order and the bits of every element; what is not the same has another hash.
func TestWeightsHash(t *testing.T) {
	t.Parallel()
	_, network := counted(t, 3)
	p := network.Params()
	require.Equal(t, []string{"fc.weight", "fc.bias"}, []string{p[0].Name, p[1].Name})
	for i := range p[0].Data() {
		p[0].Data()[i] = float32(i)
	}
	const want = "ff74fa6c90350efa8c42c561bd3b94bd0918e93eaf7d69ea182741662f679b88"
	require.Equal(t, want, WeightsHash(network))
	p[1].Data()[2] = float32(math.Copysign(0, -1))
	require.NotEqual(t, want, WeightsHash(network))
}

// Anything may be in a file. With a right checksum, too, it decodes to a checkpoint that encodes again or is refused.
func FuzzDecodeCheckpoint(f *testing.F) {
	good, err := sampleCheckpoint().Encode()
	require.NoError(f, err)
	state, err := safetensors.Decode(good)
	require.NoError(f, err)
	f.Add(good, state.Metadata["state"], "parameter/w", uint8(3))
	f.Add(good[:40], `{"phase":1,"metrics":[{}]}`, "optimizer/first/w", uint8(0))
	f.Add([]byte{}, `{"position":{"Step":1e3}}`, "parameter/", uint8(8))
	f.Add([]byte("{}"), `null`, "optimizer/", uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, state, name string, length uint8) {
		requireSound(t, data)
		file := &safetensors.File{Metadata: map[string]string{"format": checkpointFormat, "version": checkpointVersion, "state": state}}
		file.Tensors = []safetensors.Tensor{safetensors.FromFloat32(name, []int{int(length)}, make([]float32, length))}
		if length%2 == 1 {
			file.Tensors[0] = safetensors.FromFloat64(name, []int{int(length)}, make([]float64, length))
		}
		file.Metadata["sha256"] = checksum(state, file.Tensors)
		if sealed, err := safetensors.Encode(file); err == nil {
			requireSound(t, sealed)
		}
	})
}

func requireSound(t *testing.T, data []byte) {
	t.Helper()
	c, err := DecodeCheckpoint(data)
	if err != nil {
		var wrong *CheckpointError
		require.ErrorAs(t, err, &wrong)
		return
	}
	again, err := c.Encode()
	require.NoError(t, err)
	got, err := DecodeCheckpoint(again)
	require.NoError(t, err)
	a, err := json.Marshal(c)
	require.NoError(t, err)
	b, err := json.Marshal(got)
	require.NoError(t, err)
	require.Equal(t, string(a), string(b))
}
