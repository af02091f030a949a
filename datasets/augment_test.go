package datasets

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/random"
)

// augmented is the definition: pad with zeros, cut at (top, left), mirror.
func augmented(d *Dataset, index int, p plan, pad int) []uint8 {
	var out []uint8
	image := d.Image(index)
	for c := range d.Channels {
		for y := range d.Height {
			for x := range d.Width {
				if p.mirror {
					x = d.Width - 1 - x
				}
				fromY, fromX, pixel := y+p.top-pad, x+p.left-pad, uint8(0)
				if fromY >= 0 && fromY < d.Height && fromX >= 0 && fromX < d.Width {
					pixel = image[(c*d.Height+fromY)*d.Width+fromX]
				}
				out = append(out, pixel)
			}
		}
	}
	return out
}

func TestPlanApplyAgainstDefinition(t *testing.T) {
	d := sample(3)
	for pad := range 3 {
		for top := range 2*pad + 1 {
			for left := range 2*pad + 1 {
				for _, mirror := range []bool{false, true} {
					p := plan{top, left, mirror}
					dst := slices.Repeat([]uint8{99}, 30)
					p.apply(dst, d.Image(1), 3, 5, pad)
					require.Equal(t, augmented(d, 1, p, pad), dst, "%+v, pad %d", p, pad)
				}
			}
		}
	}
}

// Bytes of padding are normalized, so they are not zero where the mean is not.
func TestFillAugmentedAgainstFill(t *testing.T) {
	d, a := sample(40), Augmentation{Pad: 2, Flip: true}
	indices := random.New(1, "indices").Permutation(40)[:33]
	planner := newPlanner(a, 9)
	changed := *d
	changed.Pixels, changed.Labels = nil, nil
	for j, i := range indices {
		changed.Pixels = append(changed.Pixels, augmented(d, i, planner.plan(1000+j), a.Pad)...)
		changed.Labels = append(changed.Labels, d.Labels[i])
	}
	order := make([]int, len(indices))
	for i := range order {
		order[i] = i
	}
	want, wantLabels := make([]float32, 48*30), make([]int32, 48)
	changed.Fill(want, wantLabels, order)
	got, check := guarded(t, 48*30)
	labels := make([]int32, 48)
	d.FillAugmented(got, labels, indices, a, 9, 1000)
	check()
	require.Equal(t, want, got)
	require.Equal(t, wantLabels, labels)
}

// Draws depend on the seed and the position alone, not on how the sequence is cut into batches.
func TestFillAugmentedDependsOnPosition(t *testing.T) {
	d, a := sample(64), Augmentation{Pad: 1, Flip: true}
	all := random.New(1, "indices").Permutation(64)
	whole, labels := make([]float32, 64*30), make([]int32, 64)
	d.FillAugmented(whole, labels, all, a, 5, 0)
	for from := 0; from < 64; from += 16 {
		part := make([]float32, 16*30)
		d.FillAugmented(part, labels[:16], all[from:from+16], a, 5, from)
		require.Equal(t, whole[from*30:(from+16)*30], part)
	}
	other := make([]float32, 64*30)
	d.FillAugmented(other, labels, all, a, 6, 0)
	require.NotEqual(t, whole, other)
	d.FillAugmented(other, labels, all, a, 5, 64)
	require.NotEqual(t, whole, other)
}

func TestFillAugmentedWithoutAugmentationIsFill(t *testing.T) {
	d := sample(20)
	want, got, labels := make([]float32, 32*30), make([]float32, 32*30), make([]int32, 32)
	indices := random.New(1, "indices").Permutation(20)
	d.Fill(want, labels, indices)
	d.FillAugmented(got, labels, indices, Augmentation{}, 3, 7)
	require.Equal(t, want, got)
}

// Recorded runs depend on these values.
func TestPlansArePinned(t *testing.T) {
	p := newPlanner(Augmentation{Pad: 4, Flip: true}, 1)
	require.Equal(t, []plan{{3, 0, false}, {1, 0, false}, {7, 7, true}, {1, 5, true}}, []plan{p.plan(0), p.plan(1), p.plan(2), p.plan(1 << 40)})
}

func TestPlansAreUniform(t *testing.T) {
	p := newPlanner(Augmentation{Pad: 1, Flip: true}, 1)
	counts := map[plan]float64{}
	const draws = 36000
	for position := range draws {
		counts[p.plan(position)]++
	}
	require.Len(t, counts, 18)
	chi := 0.0
	for _, c := range counts {
		chi += (c - draws/18) * (c - draws/18) / (draws / 18)
	}
	require.Less(t, chi, 40.8) // 17 degrees of freedom: exceeded once in a thousand seeds
	p.Flip = false
	for position := range 100 {
		require.False(t, p.plan(position).mirror)
	}
}

func TestAugmentationRefuses(t *testing.T) {
	d := sample(4)
	require.NoError(t, Augmentation{Pad: 2}.Validate(d))
	for _, pad := range []int{-1, 3, math.MaxInt} {
		a := Augmentation{Pad: pad}
		require.ErrorContains(t, a.Validate(d), "0 to 2 are possible for images of 3×5")
		require.Panics(t, func() { d.FillAugmented(make([]float32, 480), make([]int32, 16), []int{0}, a, 1, 0) })
	}
	require.Panics(t, func() { d.FillAugmented(make([]float32, 480), make([]int32, 16), []int{0}, Augmentation{}, 1, -1) })
	require.PanicsWithValue(t, fillSizes, func() { d.FillAugmented(make([]float32, 479), make([]int32, 16), []int{0}, Augmentation{Pad: 1}, 1, 0) })
}

func BenchmarkFillAugmentedCIFARSize128(b *testing.B) {
	d := cifar10.empty(4096)
	s, err := NewSampler(d.Len(), 128, 1)
	require.NoError(b, err)
	f := newFiller(d, Augmentation{Pad: 4, Flip: true}, 1)
	dst, labels := make([]float32, 128*cifarImage), make([]int32, 128)
	b.SetBytes(int64(4 * len(dst)))
	b.ReportAllocs()
	step := 0
	for b.Loop() {
		f.fill(dst, labels, s.Batch(step%32), step*128)
		step++
	}
}
