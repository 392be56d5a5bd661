package batch_test

import (
	"testing"

	"github.com/batchyard/batchyard/batch"
)

func TestSizeOf(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for name, want := range map[string]struct {
		cores  int
		memory int64
	}{
		"STANDARD_D2_V3": {2, 8 * gib}, "Standard_D4s_v3": {4, 16 * gib}, "standard_d2_v2": {2, 7 * gib},
		"STANDARD_D14_V2": {16, 112 * gib}, "STANDARD_DS3_V2": {4, 14 * gib}, "STANDARD_A1_V2": {1, 2 * gib},
		"STANDARD_A2M_V2": {2, 16 * gib}, "STANDARD_A1": {1, 7 * gib / 4}, "small": {1, 7 * gib / 4},
		"ExtraLarge": {8, 14 * gib}, "STANDARD_F4S_V2": {4, 8 * gib}, "Standard_E8s_v5": {8, 64 * gib},
		"Standard_E32-16s_v3": {16, 256 * gib}, "STANDARD_NC6": {6, 42 * gib}, "standard_b2ms": {2, 8 * gib},
		"custom_4c_8g": {4, 8 * gib}, "STANDARD_HB120rs_v3": {120, 480 * gib}, "Standard_NC24ads_A100_v4": {24, 168 * gib},
		"Standard_D2ds_v5": {2, 8 * gib},
	} {
		size, err := batch.SizeOf(name)
		if err != nil {
			t.Errorf("SizeOf(%q): %v", name, err)
			continue
		}
		if size.Cores != want.cores || size.Memory != want.memory || size.Disk <= 0 {
			t.Errorf("SizeOf(%q) = %d cores, %d bytes, disk %d; want %d, %d", name, size.Cores, size.Memory, size.Disk, want.cores, want.memory)
		}
	}
	for _, name := range []string{"", "huge", "STANDARD_X9", "custom_0c_1g", "custom_1c", "Standard_D0_v3"} {
		if size, err := batch.SizeOf(name); batch.CodeOf(err) != batch.CodeInvalidPropertyValue {
			t.Errorf("SizeOf(%q) = %v, %v; want InvalidPropertyValue", name, size, err)
		}
	}
}
