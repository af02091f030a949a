package kernel

// probeVectors is how many independent vectors of Lanes a round of Probe multiplies and adds: enough to hide latency.
const probeVectors = 12

// Probe does rounds of nothing but independent multiply-adds on the live path, on one thread, and returns how many
// floating-point operations that were, a multiply-add being two. Timed, it gives the peak that kernels are held against.
func Probe(rounds int) float64 {
	if !probe(rounds) {
		var sums [probeVectors][Lanes]float64
		var x [Lanes]float32
		for range rounds {
			for i := range sums {
				multiplyAdd(&sums[i], &x, 0)
			}
		}
	}
	return 2 * probeVectors * Lanes * float64(rounds)
}
