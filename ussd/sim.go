package ussd

import (
	"bytes"

	"zvonok/gateway/smpp"
)

// Parameters in which gateways tell the IMSI of the phone's SIM card (ussd.md 1.3).
const (
	tagIMSI        smpp.Tag = 0x1502 // SMPP+
	tagEyelineIMSI smpp.Tag = 0x4102
)

// imsiTags are the parameters a profile may name, by their names in the settings. source_subaddress is not among them:
// some gateways put the serving node's number there, which is another wherever the phone goes.
func imsiTags() map[string]smpp.Tag {
	return map[string]smpp.Tag{"callback_num": smpp.TagCallbackNum, "imsi": tagIMSI, "eyeline_imsi": tagEyelineIMSI}
}

// imsiOf returns the IMSI of a message, "" when the profile's parameter is absent or holds anything else: a node's number
// or zeros.
func (p *Profile) imsiOf(tlvs smpp.TLVs) string {
	for _, tag := range p.IMSI {
		value, ok := tlvs.Get(tag)
		if !ok {
			continue
		}
		value = bytes.TrimRight(value, "\x00")
		if len(value) > 3 && value[0] <= 1 {
			value = value[3:] // callback_num as it should be: digit mode, TON and NPI before the digits
		}
		if isIMSI(value) {
			return string(value)
		}
	}
	return ""
}

// isIMSI: 14 or 15 digits that begin with a country of the world (ITU-T E.212).
func isIMSI(value []byte) bool {
	if len(value) < 14 || len(value) > 15 || value[0] < '2' || value[0] > '9' {
		return false
	}
	for _, digit := range value {
		if digit < '0' || digit > '9' {
			return false
		}
	}
	return true
}
