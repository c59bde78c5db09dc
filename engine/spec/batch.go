package spec

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// BatchSize reads "2" or "25%" (rounded up) of n slots; "0" and "" are all
// of them and 1.
func BatchSize(parallelism string, n int) (int, error) {
	switch parallelism {
	case "":
		return 1, nil
	case "0":
		return max(n, 1), nil
	}
	v, err := Amount(parallelism, n)
	if err != nil {
		return 0, fmt.Errorf("parallelism %q: %w", parallelism, err)
	}
	if v == 0 && n > 0 {
		return 0, fmt.Errorf("parallelism %q is none", parallelism)
	}
	return max(v, 1), nil
}

// Amount reads "2" or "25%" (rounded up) of n.
func Amount(text string, n int) (int, error) {
	if p, ok := strings.CutSuffix(text, "%"); ok {
		v, err := strconv.ParseFloat(p, 64)
		if err != nil || !(v >= 0 && v <= 100) {
			return 0, fmt.Errorf("%q is no share between 0%% and 100%%", text)
		}
		return int(math.Ceil(v * float64(n) / 100)), nil
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < 0 {
		return 0, fmt.Errorf("%q is neither a count nor a share such as 25%%", text)
	}
	return v, nil
}
