package integer

// Term is a summand of a weight, 2^Shift or -2^Shift.
type Term struct {
	Shift    uint8
	Negative bool
}

// Of returns what the term makes of an activation, x * 2^Shift or its negative, by a shift.
func (t Term) Of(x int32) int32 {
	if t.Negative {
		return -(x << t.Shift)
	}
	return x << t.Shift
}

// ShiftAdd returns, for each code of a weight plane's table, the powers of two whose sum is the entry, lowest first: for a
// machine that has no multiplier, or one that is dearer than shifts and additions. An inner product is then
//
//	sum over i of x[i] * table[code[i]] = sum over i and over the terms t of code[i] of t.Of(x[i])
//
// the same integer, so a network that runs so gives the engine's bits.
//
// It is the canonical signed-digit form: no two shifts of an entry are neighbours, and no sum of fewer powers of two gives
// the entry. 0 has no term, a power of two one, every int8 at most four. Powers-of-two weights (PoT) have one term; those
// that are sums of them (APoT) over a common denominator have at most two over 4, 10 and 48, and three over 100. See
// Reitwiesner, Binary Arithmetic, Advances in Computers 1 (1960).
func ShiftAdd(table []int8) [][]Term {
	terms := make([][]Term, len(table))
	for code, entry := range table {
		terms[code] = signedDigits(int32(entry))
	}
	return terms
}

// signedDigits returns the terms of v. An odd rest becomes even by the digit that makes it a multiple of four, so the next
// digit is 0.
func signedDigits(v int32) []Term {
	var terms []Term
	for shift := uint8(0); v != 0; shift++ {
		if v&1 != 0 {
			digit := 2 - v&3 // 1 or -1
			terms = append(terms, Term{Shift: shift, Negative: digit < 0})
			v -= digit
		}
		v >>= 1
	}
	return terms
}
