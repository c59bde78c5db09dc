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

// distance is the number of single-letter edits between a and b
// (Levenshtein, with one row of the table).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
