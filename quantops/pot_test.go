package quantops

import "testing"

func TestPoTVectors(t *testing.T) { runPowerVectors(t, "pot") }
