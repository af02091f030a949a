package integer_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

// ladders are the magnitudes that additive powers of two give over their common denominator, the last entry of each.
var ladders = map[string][]int8{
	"pot, 4 bits":  {0, 1, 2, 4, 8, 16, 32, 64},
	"apot, 3 bits": {0, 1, 2, 4},
	"apot, 4 bits": {0, 1, 2, 3, 4, 6, 8, 10},
	"apot, 5 bits": {0, 1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 32, 33, 36, 48},
	"apot, 6 bits": hundredths(),
}

// hundredths are the sums of one of each of three sets of powers of two, over 100.
func hundredths() []int8 {
	var sums []int8
	for _, a := range []int8{0, 64, 16, 2} {
		for _, b := range []int8{0, 32, 8, 1} {
			for _, c := range []int8{0, 4} {
				sums = append(sums, a+b+c)
			}
		}
	}
	return sums
}

func TestShiftAddIsCanonical(t *testing.T) {
	table := integer.SignedTable(8)
	fewest := fewestTerms()
	for code, terms := range integer.ShiftAdd(table) {
		sum := int32(0)
		for i, term := range terms {
			sum += term.Of(1)
			if i > 0 {
				require.GreaterOrEqual(t, term.Shift, terms[i-1].Shift+2, "%d", table[code])
			}
		}
		require.EqualValues(t, table[code], sum)
		require.Len(t, terms, fewest[int32(table[code])], "%d", table[code])
	}
}

// fewestTerms counts how many signed powers of two, up to 2^8, every small integer needs.
func fewestTerms() map[int32]int {
	fewest := map[int32]int{0: 0}
	for count := 1; count <= 4; count++ {
		next := map[int32]int{}
		for v := range fewest {
			for shift := range 9 {
				next[v+1<<shift], next[v-1<<shift] = count, count
			}
		}
		for v := range next {
			if _, known := fewest[v]; !known {
				fewest[v] = count
			}
		}
	}
	return fewest
}

func TestShiftAddTermsOfLadders(t *testing.T) {
	for name, want := range map[string]int{"pot, 4 bits": 1, "apot, 3 bits": 1, "apot, 4 bits": 2, "apot, 5 bits": 2, "apot, 6 bits": 3} {
		most := 0
		for _, terms := range integer.ShiftAdd(ladders[name]) {
			most = max(most, len(terms))
		}
		require.Equal(t, want, most, name)
	}
}

// Without a single multiplication the sums of the engine's matrix product come out, for every code of every ladder.
func TestShiftAddGivesTheEnginesSums(t *testing.T) {
	random := rand.New(rand.NewPCG(61, 0))
	for name, magnitudes := range ladders {
		table := make([]int8, 0, 2*len(magnitudes))
		for _, sign := range []int8{1, -1} {
			for _, m := range magnitudes {
				table = append(table, sign*m)
			}
		}
		const outputs, inputs = 5, 200
		p := small()
		p.Input = integer.Shape{Channels: 1, Height: 1, Width: inputs}
		p.Weights = []integer.IntegerWeights{{Shape: []int{outputs, inputs}, Tables: [][]int8{table}}}
		for i := range outputs * inputs {
			p.Weights[0].Codes = append(p.Weights[0].Codes, uint16(i%len(table)))
		}
		p.Classes, p.Nodes[1].Requantizer = outputs, wide(outputs)
		image := make([]uint8, inputs)
		for i := range image {
			image[i] = uint8(random.UintN(256))
		}
		got, err := p.Run(image)
		require.NoError(t, err)
		shifts := integer.ShiftAdd(table)
		for o := range outputs {
			sum := int32(0)
			for i, x := range image {
				for _, term := range shifts[p.Weights[0].Codes[o*inputs+i]] {
					sum += term.Of(int32(x))
				}
			}
			require.Equal(t, got[o], sum, "%s, output %d", name, o)
		}
	}
}
