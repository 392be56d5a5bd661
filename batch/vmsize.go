package batch

import (
	"regexp"
	"strconv"
	"strings"
)

// Size is what a compute node of a size has: the limits that are enforced on
// its tasks together.
type Size struct {
	// Cores bounds processor time; Memory and Disk are in bytes.
	Cores        int
	Memory, Disk int64
}

const gib = int64(1) << 30

// sizePattern splits the names of Azure: Standard_, family letters, cores,
// an optional constrained core count, feature letters, version.
var sizePattern = regexp.MustCompile(`^(?:standard_|basic_)?([a-z]+?)(\d+)(?:-(\d+))?([a-z]*)(?:_[a-z0-9]+?)??(?:_v(\d+))?(?:_promo)?$`)

// customPattern is our own: custom_4c_8g is four cores and 8 GiB, with an
// optional disk, custom_4c_8g_100g.
var customPattern = regexp.MustCompile(`^custom_(\d{1,3})c_(\d{1,5})g(?:_(\d{1,6})g)?$`)

// perCore is memory in GiB a core for families in which it is the same for all
// sizes; the service publishes these ratios in its tables of sizes.
var perCore = map[string]float64{
	"b": 4, "bls": 2, "ds": 4, "dc": 4, "e": 8, "ec": 8, "eb": 8, "f": 2, "fx": 21, "l": 8, "m": 28, "h": 7, "g": 14,
	"hb": 4, "hc": 8, "hx": 8, "nc": 7, "nd": 18, "nv": 7, "np": 16, "ng": 4, "d": 4, "a": 2, "dl": 2, "nm": 7, "ncc": 7,
}

// namedSizes are those whose number is not their core count.
var namedSizes = map[string]Size{
	"extrasmall": {1, 3 * gib / 4, 20 * gib}, "small": {1, 7 * gib / 4, 224 * gib},
	"medium": {2, 7 * gib / 2, 489 * gib}, "large": {4, 7 * gib, 999 * gib}, "extralarge": {8, 14 * gib, 2039 * gib},
	"a0": {1, 3 * gib / 4, 20 * gib}, "a1": {1, 7 * gib / 4, 70 * gib}, "a2": {2, 7 * gib / 2, 135 * gib},
	"a3": {4, 7 * gib, 285 * gib}, "a4": {8, 14 * gib, 605 * gib}, "a5": {2, 14 * gib, 135 * gib},
	"a6": {4, 28 * gib, 285 * gib}, "a7": {8, 56 * gib, 605 * gib}, "a8": {8, 56 * gib, 382 * gib},
	"a9": {16, 112 * gib, 382 * gib}, "a10": {8, 56 * gib, 382 * gib}, "a11": {16, 112 * gib, 382 * gib},
	"d1": {1, 7 * gib / 2, 50 * gib}, "d2": {2, 7 * gib, 100 * gib}, "d3": {4, 14 * gib, 200 * gib},
	"d4": {8, 28 * gib, 400 * gib}, "d5": {16, 56 * gib, 800 * gib}, "d11": {2, 14 * gib, 100 * gib},
	"d12": {4, 28 * gib, 200 * gib}, "d13": {8, 56 * gib, 400 * gib}, "d14": {16, 112 * gib, 800 * gib},
	"d15": {20, 140 * gib, 1000 * gib},
	"g1":  {2, 28 * gib, 384 * gib}, "g2": {4, 56 * gib, 768 * gib}, "g3": {8, 112 * gib, 1536 * gib},
	"g4": {16, 224 * gib, 3072 * gib}, "g5": {32, 448 * gib, 6144 * gib},
}

// SizeOf knows the sizes of Azure by name, with and without the Standard_
// prefix, and custom_<cores>c_<memory GiB>g. An unknown one is
// InvalidPropertyValue.
func SizeOf(name string) (Size, error) {
	lower := strings.ToLower(name)
	if m := customPattern.FindStringSubmatch(lower); m != nil {
		cores, _ := strconv.Atoi(m[1])
		memory, _ := strconv.Atoi(m[2])
		disk, _ := strconv.Atoi(m[3])
		if disk == 0 {
			disk = 16 * cores
		}
		if cores > 0 && memory > 0 {
			return Size{cores, int64(memory) * gib, int64(disk) * gib}, nil
		}
	}
	if size, ok := azureSize(lower); ok {
		return size, nil
	}
	return Size{}, InvalidValue("vmSize", name, "It is a size of Azure like STANDARD_D2_V3 or custom_<cores>c_<memory in GiB>g")
}

func azureSize(lower string) (Size, bool) {
	m := sizePattern.FindStringSubmatch(lower)
	if m == nil {
		size, ok := namedSizes[lower]
		return size, ok
	}
	family, version := m[1], m[5]
	oldFamily := version == "" || version == "2" && (family == "d" || family == "ds")
	if size, ok := namedSizes[strings.TrimSuffix(family, "s")+m[2]]; ok && oldFamily {
		return size, true
	}
	cores, _ := strconv.Atoi(m[2])
	ratio, ok := perCore[family]
	if !ok || cores < 1 || cores > 1024 {
		return Size{}, false
	}
	switch {
	case family == "a" && strings.HasPrefix(m[4], "m"):
		ratio = 8
	case family == "d" && strings.HasPrefix(m[4], "l"), family == "b" && strings.HasPrefix(m[4], "l"):
		ratio = 2
	case family == "f" && strings.HasPrefix(m[4], "am"):
		ratio = 8
	case family == "f" && strings.HasPrefix(m[4], "as") && version != "" && version >= "6":
		ratio = 4
	}
	memory := int64(ratio * float64(cores) * float64(gib))
	if constrained, err := strconv.Atoi(m[3]); err == nil && constrained > 0 {
		cores = constrained
	}
	return Size{cores, memory, int64(16*cores) * gib}, true
}
