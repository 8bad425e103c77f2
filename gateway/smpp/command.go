package smpp

import "fmt"

// CommandID is the command_id of a PDU (SMPP 3.4, section 5.1.2.1). An answer
// has the number of its request with the top bit set.
type CommandID uint32

// Commands of SMPP 3.4 (section 5.1.2.1).
const (
	CmdGenericNack         CommandID = 0x80000000
	CmdBindReceiver        CommandID = 0x00000001
	CmdBindReceiverResp    CommandID = 0x80000001
	CmdBindTransmitter     CommandID = 0x00000002
	CmdBindTransmitterResp CommandID = 0x80000002
	CmdQuerySM             CommandID = 0x00000003
	CmdQuerySMResp         CommandID = 0x80000003
	CmdSubmitSM            CommandID = 0x00000004
	CmdSubmitSMResp        CommandID = 0x80000004
	CmdDeliverSM           CommandID = 0x00000005
	CmdDeliverSMResp       CommandID = 0x80000005
	CmdUnbind              CommandID = 0x00000006
	CmdUnbindResp          CommandID = 0x80000006
	CmdReplaceSM           CommandID = 0x00000007
	CmdReplaceSMResp       CommandID = 0x80000007
	CmdCancelSM            CommandID = 0x00000008
	CmdCancelSMResp        CommandID = 0x80000008
	CmdBindTransceiver     CommandID = 0x00000009
	CmdBindTransceiverResp CommandID = 0x80000009
	CmdOutbind             CommandID = 0x0000000B
	CmdEnquireLink         CommandID = 0x00000015
	CmdEnquireLinkResp     CommandID = 0x80000015
	CmdSubmitMulti         CommandID = 0x00000021
	CmdSubmitMultiResp     CommandID = 0x80000021
	CmdAlertNotification   CommandID = 0x00000102
	CmdDataSM              CommandID = 0x00000103
	CmdDataSMResp          CommandID = 0x80000103
)

const responseBit CommandID = 0x80000000

// IsResponse says whether the command answers a request; generic_nack does.
func (c CommandID) IsResponse() bool { return c&responseBit != 0 }

// Response is the command that answers c. Answers are returned unchanged.
func (c CommandID) Response() CommandID { return c | responseBit }

// String is the name in the specification, for example "submit_sm_resp", or
// the number in hexadecimal for a command it does not know.
func (c CommandID) String() string {
	switch c {
	case CmdGenericNack:
		return "generic_nack"
	case CmdBindReceiver:
		return "bind_receiver"
	case CmdBindReceiverResp:
		return "bind_receiver_resp"
	case CmdBindTransmitter:
		return "bind_transmitter"
	case CmdBindTransmitterResp:
		return "bind_transmitter_resp"
	case CmdQuerySM:
		return "query_sm"
	case CmdQuerySMResp:
		return "query_sm_resp"
	case CmdSubmitSM:
		return "submit_sm"
	case CmdSubmitSMResp:
		return "submit_sm_resp"
	case CmdDeliverSM:
		return "deliver_sm"
	case CmdDeliverSMResp:
		return "deliver_sm_resp"
	case CmdUnbind:
		return "unbind"
	case CmdUnbindResp:
		return "unbind_resp"
	case CmdReplaceSM:
		return "replace_sm"
	case CmdReplaceSMResp:
		return "replace_sm_resp"
	case CmdCancelSM:
		return "cancel_sm"
	case CmdCancelSMResp:
		return "cancel_sm_resp"
	case CmdBindTransceiver:
		return "bind_transceiver"
	case CmdBindTransceiverResp:
		return "bind_transceiver_resp"
	case CmdOutbind:
		return "outbind"
	case CmdEnquireLink:
		return "enquire_link"
	case CmdEnquireLinkResp:
		return "enquire_link_resp"
	case CmdSubmitMulti:
		return "submit_multi"
	case CmdSubmitMultiResp:
		return "submit_multi_resp"
	case CmdAlertNotification:
		return "alert_notification"
	case CmdDataSM:
		return "data_sm"
	case CmdDataSMResp:
		return "data_sm_resp"
	default:
		return fmt.Sprintf("0x%08x", uint32(c))
	}
}
