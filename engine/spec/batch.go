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
	if p, ok := strings.CutSuffix(parallelism, "%"); ok {
		v, err := strconv.ParseFloat(p, 64)
		if err != nil || !(v > 0 && v <= 100) {
			return 0, fmt.Errorf("parallelism %q is no share between 0%% and 100%%", parallelism)
		}
		return max(int(math.Ceil(v*float64(n)/100)), 1), nil
	}
	v, err := strconv.Atoi(parallelism)
	if err != nil || v < 0 {
		return 0, fmt.Errorf("parallelism %q is neither a count nor a share such as 25%%", parallelism)
	}
	return v, nil
}
