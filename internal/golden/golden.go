// Package golden gives tests the reference vectors of testdata: inputs and outputs of every method and layer, made
// by independent code. It is support for tests only and fails the test on a missing vector or a wrong type.
//
// A vector file is a safetensors file. Tensors are named "caseNN.TENSOR", scalars have shape [1], images are NCHW and
// weights OIHW; the metadata hold one JSON object of parameters for each case.
package golden

import (
	"embed"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/safetensors"
)

//go:embed testdata/*.safetensors
var files embed.FS

// Case is one reference case. Its accessors fail the test that the case belongs to.
type Case struct {
	Name string // "case00"
	Kind string // what is computed, for example "fake_quant"
	Note string // what the case is there to show

	t          testing.TB
	file       *safetensors.File
	parameters map[string]any
}

// Load returns the cases of testdata/<name>.safetensors in order, bound to t.
func Load(t testing.TB, name string) []Case {
	t.Helper()
	data, err := files.ReadFile("testdata/" + name + ".safetensors")
	require.NoError(t, err)
	file, err := safetensors.Decode(data)
	require.NoError(t, err, name)
	count, err := strconv.Atoi(file.Metadata["num_cases"])
	require.NoError(t, err, name)
	cases := make([]Case, count)
	for i := range cases {
		cases[i] = newCase(t, file, fmt.Sprintf("case%02d", i))
	}
	return cases
}

// Run runs check as one subtest for every case of that kind, bound to the subtest. It fails when there is none.
func Run(t *testing.T, name, kind string, check func(t *testing.T, c Case)) {
	t.Helper()
	found := false
	for _, c := range Load(t, name) {
		if c.Kind != kind {
			continue
		}
		found = true
		t.Run(c.Name, func(t *testing.T) {
			c.t = t
			check(t, c)
		})
	}
	require.True(t, found, "%s has no case of kind %q", name, kind)
}

func newCase(t testing.TB, file *safetensors.File, name string) Case {
	t.Helper()
	c := Case{Name: name, t: t, file: file}
	require.NoError(t, json.Unmarshal([]byte(file.Metadata[name]), &c.parameters), name)
	c.Kind, c.Note = c.Text("kind"), c.Text("note")
	return c
}

// Has reports whether the case has that tensor.
func (c Case) Has(tensor string) bool {
	_, err := c.file.Tensor(c.Name + "." + tensor)
	return err == nil
}

// Shape returns the tensor's shape.
func (c Case) Shape(tensor string) []int {
	c.t.Helper()
	return c.tensor(tensor).Shape
}

// Float32 returns an F32 tensor, row-major.
func (c Case) Float32(tensor string) []float32 {
	c.t.Helper()
	return must(c, c.tensor(tensor).Float32)
}

// Float64 returns an F64 or F32 tensor, row-major.
func (c Case) Float64(tensor string) []float64 {
	c.t.Helper()
	x := c.tensor(tensor)
	if x.Dtype == "F32" {
		return convert[float64](must(c, x.Float32))
	}
	return must(c, x.Float64)
}

// Int32 returns an I32 tensor, row-major.
func (c Case) Int32(tensor string) []int32 {
	c.t.Helper()
	return must(c, c.tensor(tensor).Int32)
}

// Int64 returns an I64 tensor, row-major.
func (c Case) Int64(tensor string) []int64 {
	c.t.Helper()
	return must(c, c.tensor(tensor).Int64)
}

// Uint8 returns a U8 tensor, row-major.
func (c Case) Uint8(tensor string) []uint8 {
	c.t.Helper()
	return must(c, c.tensor(tensor).Uint8)
}

// Integers returns a tensor of any of the vectors' integer types (U8, I32, I64), row-major.
func (c Case) Integers(tensor string) []int64 {
	c.t.Helper()
	x := c.tensor(tensor)
	switch x.Dtype {
	case "U8":
		return convert[int64](must(c, x.Uint8))
	case "I32":
		return convert[int64](must(c, x.Int32))
	default:
		return must(c, x.Int64)
	}
}

// HasParam reports whether the case has that parameter.
func (c Case) HasParam(name string) bool {
	_, ok := c.parameters[name]
	return ok
}

// Number returns a numeric parameter.
func (c Case) Number(name string) float64 {
	c.t.Helper()
	return parameter[float64](c, name)
}

// Int returns an integer parameter.
func (c Case) Int(name string) int {
	c.t.Helper()
	return c.integer(name, c.Number(name))
}

// Ints returns a parameter that is a list of integers.
func (c Case) Ints(name string) []int {
	c.t.Helper()
	list := parameter[[]any](c, name)
	out := make([]int, len(list))
	for i, v := range list {
		number, ok := v.(float64)
		require.True(c.t, ok, "%s: parameter %s holds %v", c.Name, name, v)
		out[i] = c.integer(name, number)
	}
	return out
}

// Bool returns a boolean parameter.
func (c Case) Bool(name string) bool {
	c.t.Helper()
	return parameter[bool](c, name)
}

// Text returns a text parameter.
func (c Case) Text(name string) string {
	c.t.Helper()
	return parameter[string](c, name)
}

func (c Case) integer(name string, number float64) int {
	c.t.Helper()
	require.Equal(c.t, math.Trunc(number), number, "%s: parameter %s is no integer", c.Name, name)
	return int(number)
}

func (c Case) tensor(name string) *safetensors.Tensor {
	c.t.Helper()
	x, err := c.file.Tensor(c.Name + "." + name)
	require.NoError(c.t, err)
	return x
}

func parameter[T any](c Case, name string) T {
	c.t.Helper()
	require.Contains(c.t, c.parameters, name, "%s: parameter", c.Name)
	v, ok := c.parameters[name].(T)
	require.True(c.t, ok, "%s: parameter %s is %v, not %T", c.Name, name, c.parameters[name], v)
	return v
}

func must[T any](c Case, read func() ([]T, error)) []T {
	c.t.Helper()
	v, err := read()
	require.NoError(c.t, err)
	return v
}

func convert[To, From float32 | float64 | int32 | int64 | uint8](v []From) []To {
	out := make([]To, len(v))
	for i, x := range v {
		out[i] = To(x)
	}
	return out
}
