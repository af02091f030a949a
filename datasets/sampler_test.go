package datasets

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/random"
)

// The sequence is what every recorded run was trained on.
func TestSamplerIsTheConcatenationOfPermutations(t *testing.T) {
	for _, test := range []struct{ length, batch int }{{10, 4}, {10, 10}, {7, 3}, {3, 8}, {1, 5}, {64, 16}} {
		var want []int
		for _, name := range []string{"shuffle/0", "shuffle/1", "shuffle/2", "shuffle/3", "shuffle/4"} {
			want = append(want, random.New(11, name).Permutation(test.length)...)
		}
		s, err := NewSampler(test.length, test.batch, 11)
		require.NoError(t, err)
		var got []int
		for step := range len(want) / test.batch {
			got = append(got, s.Batch(step)...)
		}
		require.Equal(t, want[:len(got)], got, "%+v", test)
	}
}

func TestSamplerDependsOnStepAlone(t *testing.T) {
	s, err := NewSampler(10, 4, 5)
	require.NoError(t, err)
	var inOrder [][]int
	for step := range 40 {
		inOrder = append(inOrder, slices.Clone(s.Batch(step)))
	}
	for _, step := range random.New(1, "steps").Permutation(40) {
		require.Equal(t, inOrder[step], s.Batch(step))
	}
	fresh, err := NewSampler(10, 4, 5)
	require.NoError(t, err)
	require.Equal(t, inOrder[33], fresh.Batch(33))
	other, err := NewSampler(10, 4, 6)
	require.NoError(t, err)
	require.NotEqual(t, inOrder[0], other.Batch(0))
}

func TestSamplerFirstBatchIsPinned(t *testing.T) {
	s, err := NewSampler(60000, 4, 1)
	require.NoError(t, err)
	require.Equal(t, []int{28058, 52437, 29972, 3284}, s.Batch(0))
}

func TestStepsUntil(t *testing.T) {
	for _, test := range []struct{ length, batch, epoch, want int }{
		{50000, 128, 1, 390}, {50000, 128, 2, 781}, {60000, 64, 0, 0}, {64, 64, 3, 3}, {3, 8, 1, 0}, {3, 8, 3, 1},
	} {
		s, err := NewSampler(test.length, test.batch, 0)
		require.NoError(t, err)
		require.Equal(t, test.want, s.StepsUntil(test.epoch), "%+v", test)
	}
}

func TestSamplerRefuses(t *testing.T) {
	for _, test := range []struct {
		length, batch int
		want          string
	}{
		{0, 1, "sampling from 0 images"},
		{-1, 1, "sampling from -1 images"},
		{math.MaxInt, 1, "images; 1 to 2147483647 are possible"},
		{1, 0, "batch of 0 images"},
		{1, -5, "batch of -5 images"},
		{1, math.MaxInt, "images; 1 to 2147483647 are possible"},
	} {
		_, err := NewSampler(test.length, test.batch, 0)
		require.ErrorContains(t, err, test.want)
	}
	s, err := NewSampler(2, 1, 0)
	require.NoError(t, err)
	require.Panics(t, func() { s.Batch(-1) })
}

func TestBatches(t *testing.T) {
	for _, test := range []struct {
		length, batch int
		want          [][]int
	}{
		{5, 2, [][]int{{0, 1}, {2, 3}, {4}}},
		{4, 2, [][]int{{0, 1}, {2, 3}}},
		{2, 8, [][]int{{0, 1}}},
		{0, 8, nil},
	} {
		var got [][]int
		for indices := range Batches(test.length, test.batch) {
			got = append(got, slices.Clone(indices))
		}
		require.Equal(t, test.want, got)
	}
	for indices := range Batches(10, 3) {
		require.Equal(t, []int{0, 1, 2}, indices)
		break
	}
	require.Panics(t, func() { Batches(1, 0) })
}
