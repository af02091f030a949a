package models

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/safetensors"
	"github.com/goqat/goqat/internal/torch/checkpoints"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// tensorFile writes a safetensors file and returns its path.
func tensorFile(t testing.TB, f *safetensors.File) string {
	t.Helper()
	data, err := safetensors.Encode(f)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "tensors")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// halves makes a tensor of two-byte numbers.
func halves(name, dtype string, bits ...uint16) safetensors.Tensor {
	var data []byte
	for _, b := range bits {
		data = binary.LittleEndian.AppendUint16(data, b)
	}
	return safetensors.Tensor{Name: name, Dtype: dtype, Shape: []int{len(bits)}, Data: data}
}

func byName(tensors []Tensor) map[string]Tensor {
	m := map[string]Tensor{}
	for _, t := range tensors {
		m[t.Name] = t
	}
	return m
}

func TestReadTensorsSafetensors(t *testing.T) {
	t.Parallel()
	tensors, err := ReadTensors(tensorFile(t, &safetensors.File{Tensors: []safetensors.Tensor{
		safetensors.FromFloat32("a", []int{1, 2}, []float32{1, -2}),
		safetensors.FromFloat64("b", []int{1}, []float64{1.0 / 3}),
		safetensors.FromInt64("c", []int{2}, []int64{-1, 1<<24 + 1}),
		safetensors.FromInt64("bn.num_batches_tracked", nil, []int64{7}),
		halves("d", "F16", 0x3c00, 0xc100), halves("e", "BF16", 0x3f80, 0xc020),
	}}))
	require.NoError(t, err)
	require.Equal(t, map[string]Tensor{
		"a": {"a", []int{1, 2}, []float32{1, -2}}, "b": {"b", []int{1}, []float32{1.0 / 3}}, "c": {"c", []int{2}, []float32{-1, 1 << 24}},
		"d": {"d", []int{2}, []float32{1, -2.5}}, "e": {"e", []int{2}, []float32{1, -2.5}},
	}, byName(tensors))
}

func TestReadTensorsCheckpoint(t *testing.T) {
	t.Parallel()
	file := &safetensors.File{
		Metadata: map[string]string{"format": "goqat checkpoint", "version": "1"},
		Tensors: []safetensors.Tensor{
			safetensors.FromFloat32("parameter/conv1.bias", []int{1}, []float32{3}), safetensors.FromFloat32("optimizer/conv1.bias", []int{1}, []float32{4}),
		},
	}
	tensors, err := ReadTensors(tensorFile(t, file))
	require.NoError(t, err)
	require.Equal(t, []Tensor{{"conv1.bias", []int{1}, []float32{3}}}, tensors)

	file.Metadata["version"] = "2"
	_, err = ReadTensors(tensorFile(t, file))
	require.ErrorContains(t, err, `a checkpoint of version "2"; this program reads version 1`)
}

func TestReadTensorsTorch(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"zip.pt", "legacy.pt"} {
		tensors, err := ReadTensors(filepath.Join("..", "internal", "torch", "testdata", name))
		require.NoError(t, err)
		require.Len(t, tensors, 11)
		require.Equal(t, Tensor{"float32", []int{2, 3}, []float32{-1, -.875, -.75, -.625, -.5, -.375}}, tensors[0])
	}
}

func TestReadTensorsRefuses(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	damaged := filepath.Join(t.TempDir(), "damaged")
	require.NoError(t, os.WriteFile(damaged, []byte("\x02\x00\x00\x00\x00\x00\x00\x00{]"), 0o600))
	for path, want := range map[string]string{
		t.TempDir(): "not a file",
		empty:       "torch: neither a zip file nor",
		damaged:     "safetensors: ",
		"../internal/torch/testdata/malicious-legacy.pt":                                                                  `class "posix.system" is refused`,
		tensorFile(t, &safetensors.File{Tensors: []safetensors.Tensor{safetensors.FromUint8("w", []int{1}, []uint8{1})}}): `tensor "w" holds U8`,
	} {
		_, err := ReadTensors(path)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "models: import of "+path)
	}
	_, err := ReadTensors(filepath.Join(t.TempDir(), "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestReadTensorsResNet8 compares a public safetensors file with what PyTorch computes from it.
func TestReadTensorsResNet8(t *testing.T) {
	t.Parallel()
	tensors, err := ReadTensors(checkpoints.Path(t, "resnet8-mlperf-tiny.safetensors"))
	require.NoError(t, err)
	require.Len(t, tensors, 48)
	read := byName(tensors)
	for _, want := range []Tensor{
		{"conv0.weight", []int{16, 3, 3, 3}, []float32{0.1258375644683838, 0.1062440499663353}},
		{"conv5.weight", []int{32, 16, 1, 1}, []float32{0.1556495577096939}},
		{"dense.weight", []int{10, 64}, nil},
		{"dense.bias", []int{10}, []float32{-0.08893249928951263, -0.15625350177288055}},
	} {
		got := read[want.Name]
		require.Equal(t, want.Shape, got.Shape)
		for i, v := range want.Data {
			require.Equal(t, v, got.Data[i])
		}
	}
}

func lenet(t *testing.T, weights string, seed uint64) *layers.Network {
	t.Helper()
	method, err := quantops.Parse(weights)
	require.NoError(t, err)
	network, err := New("lenet5", Options{Input: mnist, Classes: 10, Seed: seed, Methods: layers.Methods{Weights: method}})
	require.NoError(t, err)
	return network
}

func TestWriteTensors(t *testing.T) {
	t.Parallel()
	from, to := lenet(t, "lsq:4", 1), lenet(t, "lsq:4", 2)
	path := filepath.Join(t.TempDir(), "lenet.safetensors")
	require.NoError(t, WriteTensors(path, from))
	tensors, err := ReadTensors(path)
	require.NoError(t, err)
	require.Len(t, tensors, 10)
	report, err := Assign(to, tensors)
	require.NoError(t, err)
	require.Len(t, report.Matched, 10)
	from.Fit()
	for i, p := range to.Params() {
		require.Equal(t, from.Params()[i].Data(), p.Data(), p.Name) // quantizers' parameters among them
	}

	err = WriteTensors(filepath.Join(t.TempDir(), "absent", "file"), from)
	require.ErrorContains(t, err, "models: export: ")
}

func FuzzDecodeTensors(f *testing.F) {
	for _, name := range []string{"zip.pt", "legacy.pt"} {
		data, err := os.ReadFile(filepath.Join("..", "internal", "torch", "testdata", name))
		require.NoError(f, err)
		f.Add(data)
	}
	data, err := safetensors.Encode(&safetensors.File{Tensors: []safetensors.Tensor{
		safetensors.FromFloat64("b", []int{1}, []float64{math.MaxFloat64}), halves("d", "F16", 0x3c00), safetensors.FromInt64("c", []int{1}, []int64{-1}),
	}})
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		tensors, err := decodeTensors(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			require.Empty(t, tensors)
			return
		}
		for _, tensor := range tensors {
			n := 1
			for _, size := range tensor.Shape {
				n *= size
			}
			require.Len(t, tensor.Data, n)
		}
	})
}
