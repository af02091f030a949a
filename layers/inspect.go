package layers

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

// Figure is a number that may not exist, NaN, or be infinite; JSON has null for both.
type Figure float64

// MarshalJSON writes the number or null.
func (f Figure) MarshalJSON() ([]byte, error) {
	if v := float64(f); math.IsNaN(v) || math.IsInf(v, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// Inspection tells what weights look like on their levels, layer by layer and together.
type Inspection struct {
	Layers     []LayerInspection `json:"layers"`
	Weights    int64             `json:"weights"`     // how many there are
	Bytes      int64             `json:"bytes"`       // of codes and scales
	TableBytes int64             `json:"table_bytes"` // of tables
	FloatBytes int64             `json:"float_bytes"` // of the same weights as float32
	MeanBits   Figure            `json:"mean_bits"`   // of a weight's code, mean over all weights
}

// LayerInspection tells what the weights of one layer look like on their levels. With real weights w and the values ŵ
// that their codes stand for,
//
//	SquaredError = Σ (w - ŵ)²      SQNR = 10·log10(Σ w² / Σ (w - ŵ)²)      Ratio = SquaredError / that of linear:b
//
// where linear:b is symmetric uniform quantization, a scale for each output channel, at the method's bits. Gain is the g of the
// least Σ (w - g·ŵ - c)² and ScaledSQNR is SQNR with that in place of SquaredError: for methods that leave the size of
// weights to the batch normalization behind them it is the one that counts; for others g is close to 1.
type LayerInspection struct {
	Name           string             `json:"name"`
	Shape          []int              `json:"shape"`
	Method         string             `json:"method,omitempty"`      // empty where a file does not tell
	MethodBits     int                `json:"method_bits,omitempty"` // 0 without a method
	CodeBits       int                `json:"code_bits"`             // 32 for weights that are not quantized
	Vector         int                `json:"vector,omitempty"`      // weights of a code where these are several
	Low            Figure             `json:"low"`                   // range of the real weights, or of the codes' values
	High           Figure             `json:"high"`
	Parameters     []ParameterSummary `json:"parameters,omitempty"` // of the quantizer, by column
	Planes         []PlaneSummary     `json:"planes,omitempty"`     // of the integers
	LevelsUsed     int                `json:"levels_used"`          // different entries of the tables, or vectors of them, that occur
	LevelsPossible int                `json:"levels_possible"`      // different entries of the tables, or vectors of them
	SquaredError   Figure             `json:"squared_error"`        // this and what follows is NaN without real weights
	SQNR           Figure             `json:"sqnr_db"`              // +Inf without error
	Gain           Figure             `json:"gain"`
	ScaledSQNR     Figure             `json:"scaled_sqnr_db"`
	Ratio          Figure             `json:"ratio_to_linear"` // NaN where linear has no error, or none at these bits
	Bytes          int64              `json:"bytes"`           // of packed codes and scales as in a .goq file
	TableBytes     int64              `json:"table_bytes"`     // of the tables, which are there too
}

// Summary is the least, middle and greatest of some numbers.
type Summary struct {
	Min    Figure `json:"min"`
	Median Figure `json:"median"`
	Max    Figure `json:"max"`
}

// ParameterSummary tells about a column of a quantizer's parameters, "range.low" for example.
type ParameterSummary struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // learned, derived, running or measured
	Rows int    `json:"rows"` // channels, or 1
	Summary
}

// PlaneSummary tells about a plane of integer weights.
type PlaneSummary struct {
	Low    int     `json:"low"` // least and greatest entry of the table
	High   int     `json:"high"`
	Scales int     `json:"scales"` // 1 where all channels have the same
	Scale  Summary `json:"scale"`
}

// Inspect tells what weights look like on their levels.
func Inspect(all []LayerWeights) Inspection {
	var sum Inspection
	codeBits := int64(0)
	for i := range all {
		l := all[i].Inspect()
		n := int64(all[i].count())
		sum.Layers = append(sum.Layers, l)
		sum.Weights, sum.Bytes, codeBits = sum.Weights+n, sum.Bytes+l.Bytes, codeBits+l.codeBits(n)
		sum.TableBytes += l.TableBytes
	}
	sum.FloatBytes = 4 * sum.Weights
	sum.MeanBits = Figure(float64(codeBits) / float64(sum.Weights))
	return sum
}

// codeBits returns the bits of the codes of n weights.
func (l *LayerInspection) codeBits(n int64) int64 {
	return n / int64(max(1, l.Vector)) * int64(l.CodeBits)
}

// count returns the number of weights.
func (w *LayerWeights) count() int {
	n := 1
	for _, size := range w.Shape {
		n *= size
	}
	return n
}

// Inspect tells what the layer's weights look like on their levels.
func (w *LayerWeights) Inspect() LayerInspection {
	none := Figure(math.NaN())
	l := LayerInspection{
		Name: w.Layer, Shape: w.Shape, CodeBits: 32, Bytes: 4 * int64(w.count()), Parameters: w.parameters(),
		SquaredError: none, SQNR: none, Gain: none, ScaledSQNR: none, Ratio: none,
	}
	l.Low, l.High = span(w.Values)
	if w.Integers == nil {
		l.Method = w.Method.String()
		return l
	}
	l.describeIntegers(w.Integers)
	decoded := w.Integers.Decode()
	if w.Values == nil {
		l.Low, l.High = span(decoded)
		return l
	}
	l.compare(w.Values, decoded)
	if w.Method.None() {
		return l
	}
	l.Method, l.MethodBits = w.Method.String(), w.Method.Bits()
	if linear := w.linear(); linear != nil {
		l.Ratio = Figure(float64(l.SquaredError) / squaredError(w.Values, linear, 1, 0))
	}
	return l
}

// span returns the least and the greatest number, NaN for none.
func span(x []float32) (low, high Figure) {
	if len(x) == 0 {
		return Figure(math.NaN()), Figure(math.NaN())
	}
	return Figure(slices.Min(x)), Figure(slices.Max(x))
}

// compare measures how far the values of the codes are from the real weights.
func (l *LayerInspection) compare(w, decoded []float32) {
	power := squaredError(w, make([]float32, len(w)), 1, 0)
	e := squaredError(w, decoded, 1, 0)
	gain, offset := leastSquares(w, decoded)
	l.SquaredError, l.SQNR = Figure(e), decibel(power, e)
	l.Gain, l.ScaledSQNR = Figure(gain), decibel(power, squaredError(w, decoded, gain, offset))
}

// squaredError returns Σ (w - gain·v - offset)².
func squaredError(w, v []float32, gain, offset float64) float64 {
	sum := 0.0
	for i := range w {
		d := float64(w[i]) - float64(gain*float64(v[i])) - offset
		sum += float64(d * d)
	}
	return sum
}

// leastSquares returns the gain and the offset of the least Σ (w - gain·v - offset)²; NaN where all v are equal.
func leastSquares(w, v []float32) (gain, offset float64) {
	n, meanW, meanV := float64(len(w)), 0.0, 0.0
	for i := range w {
		meanW, meanV = meanW+float64(w[i]), meanV+float64(v[i])
	}
	meanW, meanV = meanW/n, meanV/n
	products, squares := 0.0, 0.0
	for i := range w {
		d := float64(v[i]) - meanV
		products += float64((float64(w[i]) - meanW) * d)
		squares += float64(d * d)
	}
	gain = products / squares
	return gain, meanW - float64(gain*meanV)
}

// decibel returns 10·log10(power/noise): +Inf without noise, NaN without either.
func decibel(power, noise float64) Figure {
	switch {
	case power == 0 || math.IsNaN(noise):
		return Figure(math.NaN())
	case noise == 0:
		return Figure(math.Inf(1))
	}
	return Figure(10 / math.Ln10 * (kernel.Log(power) - kernel.Log(noise)))
}

// linear returns what symmetric uniform quantization with a scale for each channel makes of the weights at the method's
// bits; nil where it has no such version.
func (w *LayerWeights) linear() []float32 {
	m, err := quantops.Parse("linear:" + strconv.Itoa(w.Method.Bits()))
	if err != nil {
		return nil
	}
	channels := w.Shape[0]
	q, err := m.Quantizer(quantops.Target{Role: quantops.Weights, Channels: channels, Size: len(w.Values), Signed: true})
	if err != nil {
		return nil
	}
	t := q.Theta()
	theta, units, values := make([]float32, t.Rows*len(t.Columns)), make([]float32, t.Rows), make([]float32, len(w.Values))
	q.Fit(theta, w.Values, kernel.Dense(len(w.Values)), 0)
	q.Levels(values, w.Values, theta)
	q.Units(units, theta)
	each := len(values) / len(units)
	for i := range values {
		values[i] *= units[i/each]
	}
	return values
}

// parameters summarizes the columns of the quantizer's parameters.
func (w *LayerWeights) parameters() []ParameterSummary {
	t := &w.Theta
	list := make([]ParameterSummary, len(t.Columns))
	for c, name := range t.Columns {
		column := make([]float64, t.Rows)
		for row := range column {
			column[row] = float64(w.Parameters[row*len(t.Columns)+c])
		}
		if name != t.Name {
			name = t.Name + "." + name
		}
		list[c] = ParameterSummary{Name: name, Kind: columnKind(t, c), Rows: t.Rows, Summary: summarize(column)}
	}
	return list
}

// columnKind says where the numbers of a column of parameters come from.
func columnKind(t *quantops.Theta, column int) string {
	switch {
	case t.Kind == quantops.Learned && column >= len(t.Columns)-t.Measured:
		return "measured"
	case t.Kind == quantops.Learned:
		return "learned"
	case t.Kind == quantops.Derived:
		return "derived"
	}
	return "running"
}

// summarize sorts the numbers and returns the least, the middle (the mean of two) and the greatest.
func summarize(x []float64) Summary {
	slices.Sort(x)
	n := len(x)
	return Summary{Figure(x[0]), Figure(x[(n-1)/2]/2 + x[n/2]/2), Figure(x[n-1])}
}

// describeIntegers fills in what codes, tables and scales tell.
func (l *LayerInspection) describeIntegers(w *integer.Weights) {
	l.CodeBits, l.Vector = int(w.Bits), w.Vector
	l.Bytes = (int64(len(w.Codes))*int64(w.Bits) + 7) / 8
	for _, plane := range w.Planes {
		scales, bytes := scaleForm(plane.Scale)
		l.Bytes += bytes
		l.TableBytes += int64(len(plane.Table))
		l.Planes = append(l.Planes, PlaneSummary{
			Low: int(slices.Min(plane.Table)), High: int(slices.Max(plane.Table)), Scales: scales, Scale: summarize(slices.Clone(plane.Scale)),
		})
	}
	used := make([]bool, 1<<w.Bits)
	for _, code := range w.Codes {
		used[code] = true
	}
	occurring, all := map[string]bool{}, map[string]bool{}
	for code, occurs := range used {
		e := entries(w, code)
		all[e] = true
		if occurs {
			occurring[e] = true
		}
	}
	l.LevelsUsed, l.LevelsPossible = len(occurring), len(all)
}

// entries returns what a code stands for: the entries of every plane's table, as bytes.
func entries(w *integer.Weights, code int) string {
	var all []byte
	d := max(1, w.Vector)
	for _, plane := range w.Planes {
		for _, entry := range plane.Table[code*d:][:d] {
			all = append(all, byte(entry))
		}
	}
	return string(all)
}

// scaleForm returns how many scales a .goq file holds for a plane, and their bytes: it keeps every bit and no more.
func scaleForm(scales []float64) (count int, bytes int64) {
	count, each := 1, int64(4)
	for _, scale := range scales {
		if math.Float64bits(scale) != math.Float64bits(scales[0]) {
			count = len(scales)
		}
		if float64(float32(scale)) != scale {
			each = 8
		}
	}
	return count, int64(count) * each
}

// Histogram counts weights in equal bins from Low to High, with the levels among them.
type Histogram struct {
	Low    Figure  `json:"low"`
	High   Figure  `json:"high"`
	Counts []int   `json:"counts"`
	Levels []Level `json:"levels"` // ascending
}

// Level is a number that codes stand for, and how many weights have such a code.
type Level struct {
	Value Figure `json:"value"`
	Count int    `json:"count"`
}

// Histogram counts the real weights of an output channel, or of all channels for -1, in bins over their range and that of
// their levels; without real weights, the values of the codes. Levels are those that weights have and, where all
// the channels counted share their levels, those in the range that no weight has. What is not finite is left out.
func (w *LayerWeights) Histogram(channel, bins int) (Histogram, error) {
	if channel < -1 || channel >= w.Shape[0] {
		return Histogram{}, fmt.Errorf("layers: %s has no output channel %d: want 0 to %d", w.Layer, channel, w.Shape[0]-1)
	}
	from, to := 0, w.Shape[0]
	if channel >= 0 {
		from, to = channel, channel+1
	}
	each := w.count() / w.Shape[0]
	var levels map[float32]int
	x := w.Values
	if w.Integers != nil {
		decoded := w.Integers.Decode()
		levels = occurrences(decoded[from*each : to*each])
		if x == nil {
			x = decoded
		}
	}
	x = x[from*each : to*each]
	h := Histogram{Low: Figure(math.Inf(1)), High: Figure(math.Inf(-1)), Counts: make([]int, bins)}
	for _, v := range x {
		h.widen(v)
	}
	for v := range levels {
		h.widen(v)
	}
	h.open()
	if w.Integers != nil && (to-from == 1 || w.shared()) {
		h.addUnused(w.Integers, from, levels)
	}
	for _, v := range x {
		if finite(v) {
			h.Counts[h.Bin(float64(v))]++
		}
	}
	for v, count := range levels {
		h.Levels = append(h.Levels, Level{Figure(v), count})
	}
	slices.SortFunc(h.Levels, func(a, b Level) int { return compareFigures(a.Value, b.Value) })
	return h, nil
}

func compareFigures(a, b Figure) int {
	if a < b {
		return -1
	}
	return 1
}

func finite(v float32) bool { return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) }

// occurrences counts the different finite numbers.
func occurrences(x []float32) map[float32]int {
	counts := map[float32]int{}
	for _, v := range x {
		if finite(v) {
			counts[v]++
		}
	}
	return counts
}

// widen makes the range hold v.
func (h *Histogram) widen(v float32) {
	if finite(v) {
		h.Low, h.High = min(h.Low, Figure(v)), max(h.High, Figure(v))
	}
}

// open makes a range of something out of one of nothing.
func (h *Histogram) open() {
	switch {
	case h.Low > h.High:
		h.Low, h.High = -1, 1
	case h.Low == h.High:
		h.Low, h.High = h.Low-1, h.High+1
	}
}

// Bin returns the bin of a number in the range; others count with the nearest.
func (h *Histogram) Bin(v float64) int {
	n := len(h.Counts)
	return max(0, min(n-1, int(float64((v-float64(h.Low))/float64(h.High-h.Low))*float64(n))))
}

// shared says whether all channels have the same levels.
func (w *LayerWeights) shared() bool {
	for _, plane := range w.Integers.Planes {
		if count, _ := scaleForm(plane.Scale); count > 1 {
			return false
		}
	}
	return true
}

// addUnused adds the levels of a channel in the range that no weight has.
func (h *Histogram) addUnused(w *integer.Weights, channel int, levels map[float32]int) {
	every := &integer.Weights{Shape: []int{1, max(1, w.Vector) << w.Bits}, Bits: w.Bits, Vector: w.Vector, Codes: make([]uint16, 1<<w.Bits)}
	for code := range every.Codes {
		every.Codes[code] = uint16(code)
	}
	for _, plane := range w.Planes {
		every.Planes = append(every.Planes, integer.Plane{Table: plane.Table, Scale: plane.Scale[channel : channel+1]})
	}
	for _, v := range every.Decode() {
		if _, there := levels[v]; !there && float64(v) >= float64(h.Low) && float64(v) <= float64(h.High) {
			levels[v] = 0
		}
	}
}
