package train

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
)

// The schedule of MindSpore's golden-stick, by epoch: from a fifth of the training on times a factor, one-hot from three fifths.
func TestAnnealVectors(t *testing.T) {
	golden.Run(t, "slb", "temperature", func(t *testing.T, c golden.Case) {
		epochs, start, end := c.Number("epochs"), c.Number("start"), c.Number("end")
		a := Anneal{From: c.Number("T0"), To: c.Number("T0") * math.Pow(c.Number("factor"), end-start), Start: start / epochs, End: end / epochs}
		hard := c.Integers("hard")
		for i, epoch := range c.Integers("epoch") {
			temperature := a.Temperature(float64(epoch) / epochs)
			require.Equal(t, hard[i] == 1, temperature == 0, "epoch %d", epoch)
			if hard[i] == 0 {
				require.InEpsilon(t, c.Float64("tau")[i], temperature, 1e-12, "epoch %d", epoch)
			}
		}
	})
}

func TestAnnealShapes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]float64{ // 1/τ at 0, ¼, ½, ¾ and 1; 0 for one-hot
		"":                               {1, math.Pow(100, 0.25/0.8), math.Pow(100, 0.5/0.8), math.Pow(100, 0.75/0.8), 0},
		"exp,from=2,to=32,end=1":         {2, 4, 8, 16, 0},
		"linear,from=2,to=32,end=1":      {2, 9.5, 17, 24.5, 0},
		"sin,from=1,to=3,end=1":          {1, 1 + 2*math.Sin(math.Pi/8), 1 + math.Sqrt2, 1 + 2*math.Sin(3*math.Pi/8), 0},
		"exp,from=4,to=4":                {4, 4, 4, 4, 0},
		"exp,to=16,start=0.25,end=0.75":  {1, 1, 4, 0, 0},
		"linear,to=1e7,start=0.5,end=.8": {1, 1, 1, 1 + (1e7-1)*0.25/0.3, 0},
	} {
		a, err := ParseAnneal(text)
		require.NoError(t, err, text)
		for i, sharpness := range want {
			temperature := a.Temperature(float64(i) / 4)
			if sharpness == 0 {
				require.Zero(t, temperature, text)
				continue
			}
			require.InEpsilon(t, 1/sharpness, temperature, 1e-9, "%s at %d/4", text, i)
		}
		again, err := ParseAnneal(a.String())
		require.NoError(t, err)
		require.Equal(t, a, again)
	}
	require.Equal(t, "exp,from=1,to=100,start=0,end=0.8", Anneal{}.String())
}

func TestAnnealErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"cosine":              `train: annealing "cosine": unknown shape "cosine" (known: exp, linear, sin)`,
		"exp,from=0":          `train: annealing "exp,from=0": from=0; want a number from 1e-7 to 1e7`,
		"exp,to=1e8":          `train: annealing "exp,to=1e8": to=1e8; want a number from 1e-7 to 1e7`,
		"exp,from=3,to=2":     `train: annealing "exp,from=3,to=2": from=3 to=2: want a sharpness that does not fall`,
		"exp,start=1,end=0.5": `train: annealing "exp,start=1,end=0.5": start=1 end=0.5: want an end behind the start`,
		"exp,end=1.5":         `train: annealing "exp,end=1.5": end=1.5; want a share of the training, 0 to 1`,
		"sin,end":             `train: annealing "sin,end": option "end" has no value; want key=value`,
	} {
		_, err := ParseAnneal(text)
		require.EqualError(t, err, want)
	}
	c := DefaultConfig()
	c.Anneal = "flat"
	require.EqualError(t, c.Validate(), `train: annealing "flat": unknown shape "flat" (known: exp, linear, sin)`)
}
