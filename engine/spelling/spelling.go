// Package spelling guesses which word was meant.
package spelling

// Nearest is the one of known that word probably was meant to be; "" if none
// is near: more than a third of its letters and one would be wrong.
func Nearest(word string, known []string) string {
	best, at := "", len(word)/3+2
	for _, k := range known {
		if d := distance(word, k); d < at {
			best, at = k, d
		}
	}
	if word == "" {
		return ""
	}
	return best
}

// distance is the number of edits between a and b: a letter more, less or
// another, or two neighbours exchanged (optimal string alignment distance).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				cost++
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cost = min(cost, rows[i-2][j-2]+1)
			}
			rows[i][j] = min(cost, rows[i-1][j]+1, rows[i][j-1]+1)
		}
	}
	return rows[len(a)][len(b)]
}
