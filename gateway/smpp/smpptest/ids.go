package smpptest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
)

// IDForm is the way an operator writes the id of a message. The same message
// has the same number behind every form but UUID.
type IDForm uint8

// Forms of ids.
const (
	SameForm   IDForm = iota // in receipts that of the answer, in answers decimal
	Decimal                  // 2718281828
	Hex                      // a205b064
	HexUpper                 // A205B064
	ZeroPadded               // 00000000002718281828
	HexPadded                // 00000000A205B064
	UUID                     // 6ba7b810-9dad-41d1-80b4-00c04fd430c8
)

const (
	bigIDBits    = 70
	firstID      = 2_700_000_000 // above 31 bits, as ids of a busy SMSC are
	paddedDigits = 20
)

// id writes the id of the n-th message.
func (b *Behaviour) id(seed, n uint64, form IDForm) string {
	number := firstID + n
	if form == UUID {
		var octets [16]byte
		random := rand.NewPCG(seed, number)
		binary.BigEndian.PutUint64(octets[:], random.Uint64())
		binary.BigEndian.PutUint64(octets[8:], random.Uint64())
		octets[6], octets[8] = octets[6]&0x0F|0x40, octets[8]&0x3F|0x80
		text := hex.EncodeToString(octets[:])
		return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
	}
	if b.BigIDs {
		long := new(big.Int).Lsh(big.NewInt(1), bigIDBits)
		long.Add(long, new(big.Int).SetUint64(number))
		return pad(form, long.Text(10), long.Text(16))
	}
	if form == Decimal || form == SameForm {
		return strconv.FormatUint(number, 10)
	}
	return pad(form, strconv.FormatUint(number, 10), strconv.FormatUint(number, 16))
}

func pad(form IDForm, decimal, hexadecimal string) string {
	switch form {
	case Hex:
		return hexadecimal
	case HexUpper:
		return strings.ToUpper(hexadecimal)
	case ZeroPadded:
		return fmt.Sprintf("%0*s", paddedDigits+len(decimal)/paddedDigits*4, decimal)
	case HexPadded:
		return strings.ToUpper(fmt.Sprintf("%0*s", 16+len(hexadecimal)/16*4, hexadecimal))
	default:
		return decimal
	}
}

func (b *Behaviour) answerID(seed, n uint64) string { return b.id(seed, n, b.ID) }

func (b *Behaviour) receiptID(seed, n uint64) string {
	form := b.ReceiptID
	if form == SameForm {
		form = b.ID
	}
	return b.id(seed, n, form)
}
