package datasets

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/random"
)

// sample returns n images of 2×3×5 random pixels in 3 classes; image i has label i mod 3.
func sample(n int) *Dataset {
	d := &Dataset{
		Name: "sample", Channels: 2, Height: 3, Width: 5, Classes: []string{"a", "b", "c"},
		Pixels: make([]uint8, n*2*3*5), Labels: make([]uint16, n),
		Mean: []float32{0.5, 0.25}, Std: []float32{0.25, 0.1},
	}
	s := random.New(1, "pixels")
	for i := range d.Pixels {
		d.Pixels[i] = uint8(s.Below(256))
	}
	for i := range d.Labels {
		d.Labels[i] = uint16(i % 3)
	}
	return d
}

func TestValidate(t *testing.T) {
	require.NoError(t, sample(7).Validate())
	for name, test := range map[string]struct {
		spoil func(*Dataset)
		want  string
	}{
		"no images":         {func(d *Dataset) { d.Labels, d.Pixels = nil, nil }, "0 images; at least 1"},
		"no channels":       {func(d *Dataset) { d.Channels = 0 }, "0 Channels; at least 1"},
		"negative height":   {func(d *Dataset) { d.Height = -3 }, "-3 Height; at least 1"},
		"no width":          {func(d *Dataset) { d.Width = 0 }, "0 Width; at least 1"},
		"too many pixels":   {func(d *Dataset) { d.Width = math.MaxInt / 2 }, "more than 2147483647 pixels"},
		"one pixel short":   {func(d *Dataset) { d.Pixels = d.Pixels[1:] }, "209 pixels; 7 labels and images of 2×3×5 need 210"},
		"label too large":   {func(d *Dataset) { d.Labels[5] = 3 }, "label 3 of image 5; there are 3 classes"},
		"no classes":        {func(d *Dataset) { d.Classes = nil }, "there are 0 classes"},
		"mean missing":      {func(d *Dataset) { d.Mean = nil }, "0 values of Mean and 2 of Std for 2 channels"},
		"std of too many":   {func(d *Dataset) { d.Std = make([]float32, 3) }, "2 values of Mean and 3 of Std for 2 channels"},
		"std zero":          {func(d *Dataset) { d.Std[1] = 0 }, "standard deviation 0 of channel 1"},
		"std negative":      {func(d *Dataset) { d.Std[0] = -1 }, "standard deviation -1 of channel 0"},
		"std not a number":  {func(d *Dataset) { d.Std[0] = float32(math.NaN()) }, "standard deviation NaN of channel 0"},
		"std infinite":      {func(d *Dataset) { d.Std[0] = float32(math.Inf(1)) }, "standard deviation +Inf of channel 0"},
		"std too small":     {func(d *Dataset) { d.Std[0] = 1e-40 }, "no finite number"},
		"mean not a number": {func(d *Dataset) { d.Mean[1] = float32(math.NaN()) }, "no finite number"},
	} {
		t.Run(name, func(t *testing.T) {
			d := sample(7)
			test.spoil(d)
			err := d.Validate()
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "datasets: sample: ")
		})
	}
}

func TestImageSliceHead(t *testing.T) {
	d := sample(7)
	require.Equal(t, d.Pixels[60:90], d.Image(2))
	part := d.Slice(2, 5)
	require.NoError(t, part.Validate())
	require.Equal(t, 3, part.Len())
	require.Equal(t, d.Image(4), part.Image(2))
	require.Equal(t, []uint16{2, 0, 1}, part.Labels)
	require.Equal(t, 4, d.Head(4).Len())
	require.Equal(t, 7, d.Head(100).Len())
	require.Equal(t, 0, d.Head(-1).Len())
	require.Panics(t, func() { d.Slice(5, 8) })
	part.Pixels = append(part.Pixels, 1) // must not write into d
	require.Equal(t, sample(7).Pixels, d.Pixels)
}

func TestSplitValidation(t *testing.T) {
	d := sample(50)
	for i := range d.Len() {
		d.Image(i)[0] = uint8(i) // recognizable
	}
	train, validation, err := d.SplitValidation(10, 3)
	require.NoError(t, err)
	require.NoError(t, train.Validate())
	require.NoError(t, validation.Validate())
	require.Equal(t, 40, train.Len())
	require.Equal(t, 10, validation.Len())
	seen := map[uint8]bool{}
	for _, part := range []*Dataset{train, validation} {
		last := -1
		for i := range part.Len() {
			from := part.Image(i)[0]
			require.Greater(t, int(from), last, "original order")
			require.Equal(t, d.Image(int(from)), part.Image(i))
			require.Equal(t, d.Labels[from], part.Labels[i])
			last = int(from)
			seen[from] = true
		}
	}
	require.Len(t, seen, 50)

	_, again, err := d.SplitValidation(10, 3)
	require.NoError(t, err)
	require.Equal(t, validation, again)
	_, other, err := d.SplitValidation(10, 4)
	require.NoError(t, err)
	require.NotEqual(t, validation.Pixels, other.Pixels)
	for _, n := range []int{-1, 0, 50, 51} {
		_, _, err := d.SplitValidation(n, 3)
		require.ErrorContains(t, err, "1 to 49 are possible")
	}
}

func TestRegister(t *testing.T) {
	complete := Spec{Name: "test-set", Doc: "d", Source: "s", License: "l", Load: func(string) (Split, error) { return Split{}, nil }}
	for name, spoil := range map[string]func(*Spec){
		"doc":     func(s *Spec) { s.Doc = "" },
		"source":  func(s *Spec) { s.Source = "" },
		"license": func(s *Spec) { s.License = "" },
		"load":    func(s *Spec) { s.Load = nil },
		"name":    func(s *Spec) { s.Name = "" },
	} {
		spec := complete
		spoil(&spec)
		require.Panics(t, func() { Register(spec) }, name)
	}
	Register(complete)
	got, err := Lookup("test-set")
	require.NoError(t, err)
	require.Equal(t, "d", got.Doc)
	_, err = Lookup("testset")
	require.ErrorContains(t, err, `datasets: unknown dataset "testset": did you mean "test-set"? (known: `)
}
