package quantops

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// variants returns method strings of a method at some bits: the plain one and each option at each value that it lists.
func (s *Spec) variants(bits string) []string {
	plain := s.Name + ":" + bits
	all := []string{plain}
	for _, o := range s.Options {
		for _, value := range o.values() {
			if value != o.Default {
				all = append(all, plain+","+o.Name+"="+value)
			}
		}
	}
	return all
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"none":                           "none",
		"linear:8":                       "linear:8",
		"linear:4,asymmetric":            "linear:4,asymmetric",
		"linear:4,asymmetric=true":       "linear:4,asymmetric",
		"linear:4,asymmetric=false":      "linear:4",
		"linear:4,constant=0.01":         "linear:4",
		"linear:4,constant=1":            "linear:4,constant=1",
		"linear:2,sign=signed,per=auto":  "linear:2,sign=signed",
		"lsq:2,inside=exact,per=channel": "lsq:2,per=channel,inside=exact", // in the order of the documentation
		"lsq:8,range=full":               "lsq:8",
		"kmeans:3":                       "kmeans:3",
		"pq":                             "pq",
		"pq:d=9,k=256":                   "pq",
		"pq:k=64,d=18":                   "pq:d=18,k=64",
		"vq:assign=weighted,k=256":       "vq:assign=weighted",
	} {
		m, err := Parse(text)
		require.NoError(t, err, text)
		require.Equal(t, want, m.String(), text)
		again := MustParse(m.String())
		require.Equal(t, m.String(), again.String())
		require.Equal(t, m.Name(), again.Name())
		require.Equal(t, m.Bits(), again.Bits())
	}
}

func TestParseErrors(t *testing.T) {
	var names []string
	for _, s := range All() {
		names = append(names, s.Name)
	}
	known := " (known: " + strings.Join(names, ", ") + ")"
	for text, want := range map[string]string{
		"":                                 `quantops: unknown method ""` + known,
		"lineer:8":                         `quantops: unknown method "lineer": did you mean "linear"?` + known,
		"LSQ:4":                            `quantops: unknown method "LSQ": did you mean "lsq"?` + known,
		"float32":                          `quantops: unknown method "float32"` + known,
		"lsq":                              `quantops: method "lsq": the number of bits is missing; write for example "lsq:8"`,
		"linear,asymmetric":                `quantops: method "linear,asymmetric": the number of bits is missing; write for example "linear:8"`,
		"lsq:":                             `quantops: method "lsq:": "" is not a number of bits`,
		"lsq:four":                         `quantops: method "lsq:four": "four" is not a number of bits`,
		"lsq:4.0":                          `quantops: method "lsq:4.0": "4.0" is not a number of bits`,
		"lsq:4:4":                          `quantops: method "lsq:4:4": "4:4" is not a number of bits`,
		"lsq: 4":                           `quantops: method "lsq: 4": " 4" is not a number of bits`,
		"lsq:99999999999999999999":         `quantops: method "lsq:99999999999999999999": "99999999999999999999" is not a number of bits`,
		"lsq:1":                            `quantops: method "lsq:1": lsq has 2 to 8 bits`,
		"lsq:0":                            `quantops: method "lsq:0": lsq has 2 to 8 bits`,
		"linear:-4":                        `quantops: method "linear:-4": linear has 2 to 8 bits`,
		"linear:9":                         `quantops: method "linear:9": linear has 2 to 8 bits`,
		"lsq:4,asymmetric":                 `quantops: method "lsq:4,asymmetric": no option "asymmetric"; lsq has per, range, sign, init, inside`,
		"lsq:4,":                           `quantops: method "lsq:4,": no option ""; lsq has per, range, sign, init, inside`,
		"lsq:4,per":                        `quantops: method "lsq:4,per": option per="": per is one of tensor, channel`,
		"lsq:4,per=image":                  `quantops: method "lsq:4,per=image": option per="image": per is one of tensor, channel`,
		"linear:4,asymmetric=yes":          `quantops: method "linear:4,asymmetric=yes": option asymmetric="yes": asymmetric is one of false, true`,
		"linear:4,asymmetric=":             `quantops: method "linear:4,asymmetric=": option asymmetric="": asymmetric is one of false, true`,
		"linear:4,constant=0":              `quantops: method "linear:4,constant=0": option constant="0": constant is a number in (0, 1]`,
		"linear:4,constant=1.5":            `quantops: method "linear:4,constant=1.5": option constant="1.5": constant is a number in (0, 1]`,
		"linear:4,constant=NaN":            `quantops: method "linear:4,constant=NaN": option constant="NaN": constant is a number in (0, 1]`,
		"linear:4,constant":                `quantops: method "linear:4,constant": option constant="": constant is a number in (0, 1]`,
		"lsq:4,per=tensor,per=tensor":      `quantops: method "lsq:4,per=tensor,per=tensor": option "per" is given twice`,
		"pq:":                              `quantops: method "pq:": no option ""; pq has d, pointwise, k, assign`,
		"pq,d=9":                           `quantops: method "pq,d=9": options of pq follow a colon; write "pq:d=9"`,
		"pq:4":                             `quantops: method "pq:4": no option "4"; pq has d, pointwise, k, assign`,
		"pq:d=9,":                          `quantops: method "pq:d=9,": no option ""; pq has d, pointwise, k, assign`,
		"pq:d=09":                          `quantops: method "pq:d=09": option d="09": d is a whole number from 1 to 1048576`,
		"pq:d=0":                           `quantops: method "pq:d=0": option d="0": d is a whole number from 1 to 1048576`,
		"pq:k=100":                         `quantops: method "pq:k=100": option k="100": k is a power of two from 2 to 65536`,
		"pq:k=1":                           `quantops: method "pq:k=1": option k="1": k is a power of two from 2 to 65536`,
		"pq:k=131072":                      `quantops: method "pq:k=131072": option k="131072": k is a power of two from 2 to 65536`,
		"pq:k=-2":                          `quantops: method "pq:k=-2": option k="-2": k is a power of two from 2 to 65536`,
		"vq:d=9":                           `quantops: method "vq:d=9": no option "d"; vq has k, assign`,
		"kmeans":                           `quantops: method "kmeans": the number of bits is missing; write for example "kmeans:8"`,
		"kmeans:9":                         `quantops: method "kmeans:9": kmeans has 1 to 8 bits for weights and no bits for activations`,
		"linear:4,asymmetric,asymmetric=1": `quantops: method "linear:4,asymmetric,asymmetric=1": option "asymmetric" is given twice`,
	} {
		m, err := Parse(text)
		require.EqualError(t, err, want)
		require.True(t, m.None(), text)
		require.PanicsWithError(t, want, func() { MustParse(text) })
	}
}

func TestMethodQuantizerErrors(t *testing.T) {
	weights, activations := Target{Role: Weights, Channels: 2, Size: 4, Signed: true}, Target{Role: Activations, Channels: 1, Size: 4}
	half := Method{spec: &Spec{Name: "half", Weights: Bits{2, 5}}, bits: 4}
	for _, c := range []struct {
		method Method
		target Target
		want   string
	}{
		{MustParse("linear:4,per=channel"), activations, `quantops: method "linear:4,per=channel": per=channel is for weights; activations have one scale per tensor`},
		{MustParse("lsq:4,per=channel"), activations, `quantops: method "lsq:4,per=channel": per=channel is for weights; activations have one step per tensor`},
		{MustParse("lsq:4").WithBits(16), weights, `quantops: method "linear:16": weights of linear have 2 to 8 bits`},
		{MustParse("linear:4").WithBits(1), activations, `quantops: method "linear:1": activations of linear have 2 to 8 bits`},
		{half, activations, `quantops: method "half:4": half is not for activations`},
	} {
		q, err := c.method.Quantizer(c.target)
		require.EqualError(t, err, c.want)
		require.Nil(t, q)
	}
	none, err := Method{}.Quantizer(weights)
	require.NoError(t, err)
	require.Nil(t, none)
}

func TestMethodWithBits(t *testing.T) {
	require.Equal(t, "lsq:8,per=channel", MustParse("lsq:2,per=channel").WithBits(8).String())
	require.Equal(t, "none", Method{}.WithBits(8).String())
	narrow := Method{spec: &Spec{Name: "narrow", Weights: Bits{2, 5}, Activations: Bits{2, 4}}, bits: 4}
	require.Equal(t, "narrow:3", narrow.WithBits(3).String())
	require.Equal(t, "linear:8", narrow.WithBits(8).String())
	require.Equal(t, "linear:8", MustParse("pq").WithBits(8).String())
	require.Equal(t, "linear:8", MustParse("kmeans:3").WithBits(8).String())
	require.Equal(t, 0, MustParse("pq").Bits())
	require.Equal(t, "linear:5", narrow.WithBits(5).String(), "edge layers quantize weights and activations")
	require.Equal(t, 32, Method{}.Bits())
	require.Equal(t, "none", Method{}.Name())
}

func TestMethodText(t *testing.T) {
	type config struct{ Weights, Activations Method }
	var c config
	require.NoError(t, json.Unmarshal([]byte(`{"Weights": "lsq:4,per=channel", "Activations": "none"}`), &c))
	require.Equal(t, "lsq:4,per=channel", c.Weights.String())
	require.True(t, c.Activations.None())
	text, err := json.Marshal(c)
	require.NoError(t, err)
	require.JSONEq(t, `{"Weights": "lsq:4,per=channel", "Activations": "none"}`, string(text))

	require.ErrorContains(t, json.Unmarshal([]byte(`{"Weights": "lsq:1"}`), &c), "lsq has 2 to 8 bits")
	require.Equal(t, "lsq:4,per=channel", c.Weights.String(), "a failed parse leaves the method alone")
}

func TestSpecs(t *testing.T) {
	require.NotEmpty(t, All())
	for _, s := range All() {
		require.Equal(t, strings.ToLower(s.Name), s.Name)
		require.NotContains(t, s.Name, "\n")
		require.NotContains(t, s.Doc, "\n")
		require.Regexp(t, `^\S.*, .*\d{4}$`, s.Paper, "authors, title, year")
		require.True(t, s.hasBits() || s.NewCodebook != nil, s.Name)
		found, err := Lookup(s.Name)
		require.NoError(t, err)
		require.Same(t, s, found)
		for _, o := range s.Options {
			require.NotEmpty(t, o.Doc, "%s: %s", s.Name, o.Name)
			require.NoError(t, o.accepts(o.Default), "%s: %s", s.Name, o.Name)
			require.True(t, o.Check != nil || o.Flag() || o.Values[0] == o.Default, "%s: the default of %s comes first", s.Name, o.Name)
		}
	}
}

func TestRegisterRefuses(t *testing.T) {
	full := *All()[0]
	for _, strip := range []func(s *Spec){
		func(s *Spec) { s.Doc = "" },
		func(s *Spec) { s.Paper = "" },
		func(s *Spec) { s.New = nil },
	} {
		s := full
		strip(&s)
		require.PanicsWithValue(t, "quantops: method "+s.Name+" lacks its documentation, paper or constructor", func() { Register(&s) })
	}
	require.Panics(t, func() { Register(&full) }, "the name is taken")
}

func TestBitsString(t *testing.T) {
	require.Equal(t, "2 to 8 bits", (&Spec{Weights: Bits{2, 8}, Activations: Bits{2, 8}}).bits())
	require.Equal(t, "2 to 5 bits for weights and no bits for activations", (&Spec{Weights: Bits{2, 5}}).bits())
	require.Equal(t, "none", (&Spec{}).optionNames())
}

// FuzzParse checks that what Parse takes it takes again in its canonical form, as the same method.
func FuzzParse(f *testing.F) {
	f.Add("none")
	f.Add("linear:8,")
	f.Add("linear:4,constant=0x1p-3")
	f.Add("lsq:+4,per=channel,,")
	f.Add(":,=:,=")
	f.Add("pq:d=9,k=256")
	f.Add("pq,d=9")
	f.Add("vq")
	for _, s := range All() {
		for _, text := range s.variants("4") {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(text)
		if err != nil {
			require.True(t, m.None())
			return
		}
		again, err := Parse(m.String())
		require.NoError(t, err)
		require.Equal(t, m.String(), again.String())
		target := Target{Role: Weights, Channels: 2, Size: 4, Signed: true}
		a, errA := m.Quantizer(target)
		b, errB := again.Quantizer(target)
		require.Equal(t, a, b)
		require.Equal(t, errA, errB)
		for _, shape := range [][]int{{16, 8, 3, 3}, {4, 2}} {
			a, errA := m.Codebook(shape)
			b, errB := again.Codebook(shape)
			require.Equal(t, a, b)
			require.Equal(t, errA, errB)
		}
	})
}
