package plugins

// assign reports whether each of n things on the left can be given a place
// among m on the right, no right one taking more than capacity allows, along
// fits. It is augmenting paths (Kuhn), O(n·n·m) at worst: both sides are bounded
// by their callers.
func assign(n, m int, capacity func(j int) int, fits func(i, j int) bool) bool {
	held := make([][]int, m) // held[j]: what j was given
	var place func(i int, tried []bool) bool
	place = func(i int, tried []bool) bool {
		for j := range m {
			if tried[j] || !fits(i, j) {
				continue
			}
			tried[j] = true
			if len(held[j]) < capacity(j) {
				held[j] = append(held[j], i)
				return true
			}
			for k, other := range held[j] {
				if place(other, tried) {
					held[j][k] = i
					return true
				}
			}
		}
		return false
	}
	for i := range n {
		if !place(i, make([]bool, m)) {
			return false
		}
	}
	return true
}

func one(int) int { return 1 }

// perfect reports whether n things pair off with n others along fits, each used once.
func perfect(n int, fits func(i, j int) bool) bool { return assign(n, n, one, fits) }
