package smpp

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Tag is the tag of an optional parameter (SMPP 3.4, section 5.3.2).
type Tag uint16

// Tags of SMPP 3.4 (section 5.3.2). TagUSSDSessionID is SMPP+, seen with
// Comverse and Eyeline.
const (
	TagDestAddrSubunit          Tag = 0x0005
	TagDestNetworkType          Tag = 0x0006
	TagDestBearerType           Tag = 0x0007
	TagDestTelematicsID         Tag = 0x0008
	TagSourceAddrSubunit        Tag = 0x000D
	TagSourceNetworkType        Tag = 0x000E
	TagSourceBearerType         Tag = 0x000F
	TagSourceTelematicsID       Tag = 0x0010
	TagQOSTimeToLive            Tag = 0x0017
	TagPayloadType              Tag = 0x0019
	TagAdditionalStatusInfoText Tag = 0x001D
	TagReceiptedMessageID       Tag = 0x001E
	TagMSMsgWaitFacilities      Tag = 0x0030
	TagPrivacyIndicator         Tag = 0x0201
	TagSourceSubaddress         Tag = 0x0202
	TagDestSubaddress           Tag = 0x0203
	TagUserMessageReference     Tag = 0x0204
	TagUserResponseCode         Tag = 0x0205
	TagSourcePort               Tag = 0x020A
	TagDestinationPort          Tag = 0x020B
	TagSARMsgRefNum             Tag = 0x020C
	TagLanguageIndicator        Tag = 0x020D
	TagSARTotalSegments         Tag = 0x020E
	TagSARSegmentSeqnum         Tag = 0x020F
	TagSCInterfaceVersion       Tag = 0x0210
	TagCallbackNumPresInd       Tag = 0x0302
	TagCallbackNumAtag          Tag = 0x0303
	TagNumberOfMessages         Tag = 0x0304
	TagCallbackNum              Tag = 0x0381
	TagDPFResult                Tag = 0x0420
	TagSetDPF                   Tag = 0x0421
	TagMSAvailabilityStatus     Tag = 0x0422
	TagNetworkErrorCode         Tag = 0x0423
	TagMessagePayload           Tag = 0x0424
	TagDeliveryFailureReason    Tag = 0x0425
	TagMoreMessagesToSend       Tag = 0x0426
	TagMessageState             Tag = 0x0427
	TagUSSDServiceOp            Tag = 0x0501
	TagDisplayTime              Tag = 0x1201
	TagSMSSignal                Tag = 0x1203
	TagMSValidity               Tag = 0x1204
	TagAlertOnMessageDelivery   Tag = 0x130C
	TagITSReplyType             Tag = 0x1380
	TagITSSessionInfo           Tag = 0x1383
	TagUSSDSessionID            Tag = 0x1501
)

// String is the name in the specification, for example "message_payload", or
// the number in hexadecimal.
func (t Tag) String() string {
	switch t {
	case TagDestAddrSubunit:
		return "dest_addr_subunit"
	case TagDestNetworkType:
		return "dest_network_type"
	case TagDestBearerType:
		return "dest_bearer_type"
	case TagDestTelematicsID:
		return "dest_telematics_id"
	case TagSourceAddrSubunit:
		return "source_addr_subunit"
	case TagSourceNetworkType:
		return "source_network_type"
	case TagSourceBearerType:
		return "source_bearer_type"
	case TagSourceTelematicsID:
		return "source_telematics_id"
	case TagQOSTimeToLive:
		return "qos_time_to_live"
	case TagPayloadType:
		return "payload_type"
	case TagAdditionalStatusInfoText:
		return "additional_status_info_text"
	case TagReceiptedMessageID:
		return "receipted_message_id"
	case TagMSMsgWaitFacilities:
		return "ms_msg_wait_facilities"
	case TagPrivacyIndicator:
		return "privacy_indicator"
	case TagSourceSubaddress:
		return "source_subaddress"
	case TagDestSubaddress:
		return "dest_subaddress"
	case TagUserMessageReference:
		return "user_message_reference"
	case TagUserResponseCode:
		return "user_response_code"
	case TagSourcePort:
		return "source_port"
	case TagDestinationPort:
		return "destination_port"
	case TagSARMsgRefNum:
		return "sar_msg_ref_num"
	case TagLanguageIndicator:
		return "language_indicator"
	case TagSARTotalSegments:
		return "sar_total_segments"
	case TagSARSegmentSeqnum:
		return "sar_segment_seqnum"
	case TagSCInterfaceVersion:
		return "sc_interface_version"
	case TagCallbackNumPresInd:
		return "callback_num_pres_ind"
	case TagCallbackNumAtag:
		return "callback_num_atag"
	case TagNumberOfMessages:
		return "number_of_messages"
	case TagCallbackNum:
		return "callback_num"
	case TagDPFResult:
		return "dpf_result"
	case TagSetDPF:
		return "set_dpf"
	case TagMSAvailabilityStatus:
		return "ms_availability_status"
	case TagNetworkErrorCode:
		return "network_error_code"
	case TagMessagePayload:
		return "message_payload"
	case TagDeliveryFailureReason:
		return "delivery_failure_reason"
	case TagMoreMessagesToSend:
		return "more_messages_to_send"
	case TagMessageState:
		return "message_state"
	case TagUSSDServiceOp:
		return "ussd_service_op"
	case TagDisplayTime:
		return "display_time"
	case TagSMSSignal:
		return "sms_signal"
	case TagMSValidity:
		return "ms_validity"
	case TagAlertOnMessageDelivery:
		return "alert_on_message_delivery"
	case TagITSReplyType:
		return "its_reply_type"
	case TagITSSessionInfo:
		return "its_session_info"
	case TagUSSDSessionID:
		return "ussd_session_id"
	default:
		return fmt.Sprintf("0x%04X", uint16(t))
	}
}

// TLV is one optional parameter: tag, length and value (SMPP 3.4, section
// 3.2.4). The value is kept as it is on the wire; a value that is a C-octet
// string includes its NUL.
type TLV struct {
	Tag   Tag
	Value []byte
}

// TLVs are the optional parameters of a PDU in the order of the wire. Unknown
// and repeated tags are kept.
type TLVs []TLV

// Get returns the value of the first parameter with the tag.
func (ts TLVs) Get(tag Tag) (value []byte, ok bool) {
	for i := range ts {
		if ts[i].Tag == tag {
			return ts[i].Value, true
		}
	}
	return nil, false
}

// Uint returns the value of the first parameter with the tag as an unsigned
// number, most significant octet first. It is not ok if the parameter is
// absent, empty or longer than four octets.
func (ts TLVs) Uint(tag Tag) (n uint32, ok bool) {
	value, ok := ts.Get(tag)
	if !ok || len(value) == 0 || len(value) > 4 {
		return 0, false
	}
	for _, octet := range value {
		n = n<<8 | uint32(octet)
	}
	return n, true
}

// Text returns the value of the first parameter with the tag up to its first
// NUL, the way C-octet strings such as receipted_message_id are meant.
func (ts TLVs) Text(tag Tag) (text string, ok bool) {
	value, ok := ts.Get(tag)
	if !ok {
		return "", false
	}
	if end := slices.Index(value, 0); end >= 0 {
		value = value[:end]
	}
	return string(value), true
}

// Uint8 makes a parameter of one octet.
func Uint8(tag Tag, n uint8) TLV { return TLV{tag, []byte{n}} }

// Uint16 makes a parameter of two octets.
func Uint16(tag Tag, n uint16) TLV { return TLV{tag, binary.BigEndian.AppendUint16(nil, n)} }

// Uint32 makes a parameter of four octets.
func Uint32(tag Tag, n uint32) TLV { return TLV{tag, binary.BigEndian.AppendUint32(nil, n)} }

// Text makes a parameter that is a C-octet string; the NUL is added.
func Text(tag Tag, s string) TLV { return TLV{tag, append([]byte(s), 0)} }

// USSD makes the parameters of a USSD message: the operation first, then the
// rest in the given order. Some gateways look only at the first parameter of a
// PDU and take the message for a mere notification if it is not
// ussd_service_op.
func USSD(op uint8, rest ...TLV) TLVs {
	ts := make(TLVs, 0, 1+len(rest))
	ts = append(ts, Uint8(TagUSSDServiceOp, op))
	return append(ts, rest...)
}

// decodeTLVs reads parameters until the octets end. What remains after the
// last whole parameter is returned as the tail: gateways pad, and a link must
// not die of it.
func decodeTLVs(b []byte) (ts TLVs, tail []byte) {
	n := 0
	for rest := b; len(rest) >= 4; n++ {
		end := 4 + int(binary.BigEndian.Uint16(rest[2:]))
		if end > len(rest) {
			break
		}
		rest = rest[end:]
	}
	if n > 0 {
		ts = make(TLVs, n)
	}
	for i := range ts {
		end := 4 + int(binary.BigEndian.Uint16(b[2:]))
		ts[i] = TLV{Tag(binary.BigEndian.Uint16(b)), b[4:end:end]}
		b = b[end:]
	}
	if len(b) > 0 {
		tail = b
	}
	return ts, tail
}
