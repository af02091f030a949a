package integer

// packedLength returns the number of bytes that count codes of the given width take.
func packedLength(count int, bits uint8) int {
	return int((int64(count)*int64(bits) + 7) / 8)
}

// packCodes appends codes at their true width, lowest bit first.
func packCodes(to []byte, codes []uint16, bits uint8) []byte {
	buffer, filled := uint32(0), uint8(0)
	for _, code := range codes {
		buffer |= uint32(code) << filled
		for filled += bits; filled >= 8; filled -= 8 {
			to = append(to, byte(buffer))
			buffer >>= 8
		}
	}
	if filled > 0 {
		to = append(to, byte(buffer))
	}
	return to
}

// unpackCodes reverses packCodes for count codes. ok is false if bits left over in the last byte are not 0.
func unpackCodes(from []byte, count int, bits uint8) (codes []uint16, ok bool) {
	codes = make([]uint16, count)
	buffer, filled := uint32(0), uint8(0)
	for i := range codes {
		for filled < bits {
			buffer |= uint32(from[0]) << filled
			from = from[1:]
			filled += 8
		}
		codes[i] = uint16(buffer & (1<<bits - 1))
		buffer >>= bits
		filled -= bits
	}
	return codes, buffer == 0
}
