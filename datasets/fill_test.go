package datasets

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/random"
)

// guarded returns size elements between guards, and a check that the guards are whole.
func guarded(t *testing.T, size int) ([]float32, func()) {
	all := make([]float32, size+32)
	for i := range all {
		all[i] = float32(math.Inf(1))
	}
	return all[16 : 16+size : 16+size], func() {
		for i, x := range all {
			require.Equal(t, i < 16 || i >= 16+size, math.IsInf(float64(x), 1), "element %d", i-16)
		}
	}
}

func TestFillAgainstDefinition(t *testing.T) {
	d := sample(40)
	d.Width, d.Height = 15, 10 // a plane of more than one tile, and a remainder
	d.Pixels = make([]uint8, 40*2*15*10)
	s := random.New(2, "pixels")
	for i := range d.Pixels {
		d.Pixels[i] = uint8(s.Below(256))
	}
	require.NoError(t, d.Validate())
	for _, n := range []int{0, 1, 15, 16, 17, 33} {
		indices := s.Permutation(40)[:n]
		blocks := (n + 15) / 16
		dst, check := guarded(t, blocks*2*10*15*16)
		labels := make([]int32, blocks*16)
		d.Fill(dst, labels, indices)
		check()
		for i := range dst {
			lane, at, block := i%16, i/16%(2*10*15), i/16/(2*10*15)
			want, label := float32(0), int32(-1)
			if image := block*16 + lane; image < n {
				c := at / (10 * 15)
				want = float32((float64(d.Image(indices[image])[at])/255 - float64(d.Mean[c])) / float64(d.Std[c]))
				label = int32(d.Labels[indices[image]])
			}
			if dst[i] != want || labels[block*16+lane] != label {
				require.Failf(t, "wrong", "n %d, element %d: %g, want %g; label %d, want %d", n, i, dst[i], want, labels[block*16+lane], label)
			}
		}
	}
}

func TestFillPanicsOnCallerBugs(t *testing.T) {
	d := sample(4)
	require.PanicsWithValue(t, fillSizes, func() { d.Fill(make([]float32, 30*16-1), make([]int32, 16), []int{0}) })
	require.PanicsWithValue(t, fillSizes, func() { d.Fill(make([]float32, 30*16), make([]int32, 17), []int{0}) })
	require.PanicsWithValue(t, fillSizes, func() { d.Fill(make([]float32, 30*16), make([]int32, 16), make([]int, 17)) })
	require.Panics(t, func() { d.Fill(make([]float32, 30*16), make([]int32, 16), []int{4}) })
}

// The values decide what an exported integer model sees; they are exact in every bit.
func TestPixelTable(t *testing.T) {
	d := &Dataset{Mean: []float32{0, 0.4914}, Std: []float32{1, 0.2023}}
	table := d.PixelTable(0)
	require.Equal(t, []float32{0, float32(1.0 / 255), 0.2, 1}, []float32{table[0], table[1], table[51], table[255]})
	table = d.PixelTable(1)
	require.Equal(t, uint32(0xc01b75d0), math.Float32bits(table[0]))
	require.Equal(t, uint32(0x4020e6d1), math.Float32bits(table[255]))
}

func BenchmarkFillCIFARSize128(b *testing.B) {
	d := &Dataset{Channels: 3, Height: 32, Width: 32, Mean: make([]float32, 3), Std: []float32{1, 1, 1}}
	d.Labels = make([]uint16, 4096)
	d.Pixels = make([]uint8, 4096*3*32*32)
	dst, labels := make([]float32, 128*3*32*32), make([]int32, 128)
	s, err := NewSampler(d.Len(), 128, 1)
	require.NoError(b, err)
	b.SetBytes(int64(4 * len(dst)))
	step := 0
	for b.Loop() {
		d.Fill(dst, labels, s.Batch(step%32))
		step++
	}
}
