package smpp

import "fmt"

// Status is the command_status of an answer (SMPP 3.4, section 5.1.3). Zero is
// success. The vendor range is 0x400 to 0x4FF.
type Status uint32

// Status codes of SMPP 3.4 (section 5.1.3) and the additions of 5.0.
const (
	// StatusOK is ESME_ROK. No error.
	StatusOK Status = 0x00
	// StatusInvalidMessageLength is ESME_RINVMSGLEN. A message length is wrong.
	StatusInvalidMessageLength Status = 0x01
	// StatusInvalidCommandLength is ESME_RINVCMDLEN. The command length is wrong.
	StatusInvalidCommandLength Status = 0x02
	// StatusInvalidCommandID is ESME_RINVCMDID. The command is unknown.
	StatusInvalidCommandID Status = 0x03
	// StatusInvalidBindStatus is ESME_RINVBNDSTS. The command does not fit the state or kind of the bind.
	StatusInvalidBindStatus Status = 0x04
	// StatusAlreadyBound is ESME_RALYBND. The system is bound already, or too often.
	StatusAlreadyBound Status = 0x05
	// StatusInvalidPriorityFlag is ESME_RINVPRTFLG. The priority flag is wrong.
	StatusInvalidPriorityFlag Status = 0x06
	// StatusInvalidRegisteredDelivery is ESME_RINVREGDLVFLG. The registered delivery flag is wrong.
	StatusInvalidRegisteredDelivery Status = 0x07
	// StatusSystemError is ESME_RSYSERR. System error of the peer.
	StatusSystemError Status = 0x08
	// StatusInvalidSourceAddress is ESME_RINVSRCADR. The source address is wrong.
	StatusInvalidSourceAddress Status = 0x0A
	// StatusInvalidDestinationAddress is ESME_RINVDSTADR. The destination address is wrong.
	StatusInvalidDestinationAddress Status = 0x0B
	// StatusInvalidMessageID is ESME_RINVMSGID. The message id is unknown.
	StatusInvalidMessageID Status = 0x0C
	// StatusBindFailed is ESME_RBINDFAIL. The bind failed.
	StatusBindFailed Status = 0x0D
	// StatusInvalidPassword is ESME_RINVPASWD. The password is wrong.
	StatusInvalidPassword Status = 0x0E
	// StatusInvalidSystemID is ESME_RINVSYSID. The system id is unknown.
	StatusInvalidSystemID Status = 0x0F
	// StatusCancelFailed is ESME_RCANCELFAIL. cancel_sm failed.
	StatusCancelFailed Status = 0x11
	// StatusReplaceFailed is ESME_RREPLACEFAIL. replace_sm failed.
	StatusReplaceFailed Status = 0x13
	// StatusQueueFull is ESME_RMSGQFUL. The message queue is full.
	StatusQueueFull Status = 0x14
	// StatusInvalidServiceType is ESME_RINVSERTYP. The service type is wrong.
	StatusInvalidServiceType Status = 0x15
	// StatusInvalidNumberOfDestinations is ESME_RINVNUMDESTS. The number of destinations is wrong.
	StatusInvalidNumberOfDestinations Status = 0x33
	// StatusInvalidDistributionList is ESME_RINVDLNAME. The distribution list is unknown.
	StatusInvalidDistributionList Status = 0x34
	// StatusInvalidDestinationFlag is ESME_RINVDESTFLAG. The destination flag is wrong.
	StatusInvalidDestinationFlag Status = 0x40
	// StatusInvalidSubmitWithReplace is ESME_RINVSUBREP. Submit with replace is not possible.
	StatusInvalidSubmitWithReplace Status = 0x42
	// StatusInvalidESMClass is ESME_RINVESMCLASS. The esm_class is wrong or not allowed.
	StatusInvalidESMClass Status = 0x43
	// StatusCannotSubmitToList is ESME_RCNTSUBDL. Cannot submit to the distribution list.
	StatusCannotSubmitToList Status = 0x44
	// StatusSubmitFailed is ESME_RSUBMITFAIL. submit_sm failed.
	StatusSubmitFailed Status = 0x45
	// StatusInvalidSourceTON is ESME_RINVSRCTON. The type of number of the source is wrong.
	StatusInvalidSourceTON Status = 0x48
	// StatusInvalidSourceNPI is ESME_RINVSRCNPI. The numbering plan of the source is wrong.
	StatusInvalidSourceNPI Status = 0x49
	// StatusInvalidDestinationTON is ESME_RINVDSTTON. The type of number of the destination is wrong.
	StatusInvalidDestinationTON Status = 0x50
	// StatusInvalidDestinationNPI is ESME_RINVDSTNPI. The numbering plan of the destination is wrong.
	StatusInvalidDestinationNPI Status = 0x51
	// StatusInvalidSystemType is ESME_RINVSYSTYP. The system type is wrong.
	StatusInvalidSystemType Status = 0x53
	// StatusInvalidReplaceFlag is ESME_RINVREPFLAG. The replace_if_present flag is wrong.
	StatusInvalidReplaceFlag Status = 0x54
	// StatusInvalidNumberOfMessages is ESME_RINVNUMMSGS. The number of messages is wrong.
	StatusInvalidNumberOfMessages Status = 0x55
	// StatusThrottled is ESME_RTHROTTLED. The allowed rate is exceeded.
	StatusThrottled Status = 0x58
	// StatusInvalidSchedule is ESME_RINVSCHED. The scheduled delivery time is wrong.
	StatusInvalidSchedule Status = 0x61
	// StatusInvalidExpiry is ESME_RINVEXPIRY. The validity period is wrong.
	StatusInvalidExpiry Status = 0x62
	// StatusInvalidDefaultMessageID is ESME_RINVDFTMSGID. The predefined message is unknown.
	StatusInvalidDefaultMessageID Status = 0x63
	// StatusReceiverTemporary is ESME_RX_T_APPN. The receiver has a temporary error: keep the message and offer it again.
	StatusReceiverTemporary Status = 0x64
	// StatusReceiverPermanent is ESME_RX_P_APPN. The receiver has a permanent error.
	StatusReceiverPermanent Status = 0x65
	// StatusReceiverRejected is ESME_RX_R_APPN. The receiver refuses the message.
	StatusReceiverRejected Status = 0x66
	// StatusQueryFailed is ESME_RQUERYFAIL. query_sm failed.
	StatusQueryFailed Status = 0x67
	// StatusInvalidTLVStream is ESME_RINVOPTPARSTREAM. The optional part of the PDU is broken.
	StatusInvalidTLVStream Status = 0xC0
	// StatusTLVNotAllowed is ESME_ROPTPARNOTALLWD. An optional parameter is not allowed here.
	StatusTLVNotAllowed Status = 0xC1
	// StatusInvalidTLVLength is ESME_RINVPARLEN. An optional parameter has a wrong length.
	StatusInvalidTLVLength Status = 0xC2
	// StatusMissingTLV is ESME_RMISSINGOPTPARAM. An expected optional parameter is missing.
	StatusMissingTLV Status = 0xC3
	// StatusInvalidTLVValue is ESME_RINVOPTPARAMVAL. An optional parameter has a wrong value.
	StatusInvalidTLVValue Status = 0xC4
	// StatusDeliveryFailure is ESME_RDELIVERYFAILURE. Delivery failed (data_sm in transaction mode).
	StatusDeliveryFailure Status = 0xFE
	// StatusUnknownError is ESME_RUNKNOWNERR. Unknown error.
	StatusUnknownError Status = 0xFF
	// StatusServiceTypeUnauthorised is ESME_RSERTYPUNAUTH. SMPP 5.0: the service type is not authorised.
	StatusServiceTypeUnauthorised Status = 0x100
	// StatusProhibited is ESME_RPROHIBITED. SMPP 5.0: the operation is prohibited.
	StatusProhibited Status = 0x101
	// StatusServiceTypeUnavailable is ESME_RSERTYPUNAVAIL. SMPP 5.0: the service type is unavailable.
	StatusServiceTypeUnavailable Status = 0x102
	// StatusServiceTypeDenied is ESME_RSERTYPDENIED. SMPP 5.0: the service type is denied.
	StatusServiceTypeDenied Status = 0x103
	// StatusInvalidDataCoding is ESME_RINVDCS. SMPP 5.0: the data coding is wrong.
	StatusInvalidDataCoding Status = 0x104
	// StatusInvalidSourceSubunit is ESME_RINVSRCADDRSUBUNIT. SMPP 5.0: the source address subunit is wrong.
	StatusInvalidSourceSubunit Status = 0x105
	// StatusInvalidDestinationSubunit is ESME_RINVDSTADDRSUBUNIT. SMPP 5.0: the destination address subunit is wrong.
	StatusInvalidDestinationSubunit Status = 0x106
	// StatusInvalidBroadcastFrequency is ESME_RINVBCASTFREQINT. SMPP 5.0: the broadcast frequency interval is wrong.
	StatusInvalidBroadcastFrequency Status = 0x107
	// StatusInvalidBroadcastAlias is ESME_RINVBCASTALIAS_NAME. SMPP 5.0: the broadcast alias is wrong.
	StatusInvalidBroadcastAlias Status = 0x108
	// StatusInvalidBroadcastAreaFormat is ESME_RINVBCASTAREAFMT. SMPP 5.0: the broadcast area format is wrong.
	StatusInvalidBroadcastAreaFormat Status = 0x109
	// StatusInvalidNumberOfBroadcastAreas is ESME_RINVNUMBCAST_AREAS. SMPP 5.0: the number of broadcast areas is wrong.
	StatusInvalidNumberOfBroadcastAreas Status = 0x10A
	// StatusInvalidBroadcastContentType is ESME_RINVBCASTCNTTYPE. SMPP 5.0: the broadcast content type is wrong.
	StatusInvalidBroadcastContentType Status = 0x10B
	// StatusInvalidBroadcastMessageClass is ESME_RINVBCASTMSGCLASS. SMPP 5.0: the broadcast message class is wrong.
	StatusInvalidBroadcastMessageClass Status = 0x10C
	// StatusBroadcastFailed is ESME_RBCASTFAIL. SMPP 5.0: broadcast_sm failed.
	StatusBroadcastFailed Status = 0x10D
	// StatusBroadcastQueryFailed is ESME_RBCASTQUERYFAIL. SMPP 5.0: query_broadcast_sm failed.
	StatusBroadcastQueryFailed Status = 0x10E
	// StatusBroadcastCancelFailed is ESME_RBCASTCANCELFAIL. SMPP 5.0: cancel_broadcast_sm failed.
	StatusBroadcastCancelFailed Status = 0x10F
	// StatusInvalidBroadcastRepeats is ESME_RINVBCAST_REP. SMPP 5.0: the number of repeats is wrong.
	StatusInvalidBroadcastRepeats Status = 0x110
	// StatusInvalidBroadcastServiceGroup is ESME_RINVBCASTSRVGRP. SMPP 5.0: the broadcast service group is wrong.
	StatusInvalidBroadcastServiceGroup Status = 0x111
	// StatusInvalidBroadcastChannel is ESME_RINVBCASTCHANIND. SMPP 5.0: the broadcast channel indicator is wrong.
	StatusInvalidBroadcastChannel Status = 0x112
)

// Vendor says whether the code is in the range left to vendors, 0x400 to 0x4FF.
func (s Status) Vendor() bool { return s >= 0x400 && s <= 0x4FF }

// String is the name in the specification, for example "ESME_RTHROTTLED", or
// the number in hexadecimal for a code it does not know.
func (s Status) String() string {
	if name := s.name(); name != "" {
		return name
	}
	return fmt.Sprintf("0x%08X", uint32(s))
}

func (s Status) name() string {
	switch s {
	case StatusOK:
		return "ESME_ROK"
	case StatusInvalidMessageLength:
		return "ESME_RINVMSGLEN"
	case StatusInvalidCommandLength:
		return "ESME_RINVCMDLEN"
	case StatusInvalidCommandID:
		return "ESME_RINVCMDID"
	case StatusInvalidBindStatus:
		return "ESME_RINVBNDSTS"
	case StatusAlreadyBound:
		return "ESME_RALYBND"
	case StatusInvalidPriorityFlag:
		return "ESME_RINVPRTFLG"
	case StatusInvalidRegisteredDelivery:
		return "ESME_RINVREGDLVFLG"
	case StatusSystemError:
		return "ESME_RSYSERR"
	case StatusInvalidSourceAddress:
		return "ESME_RINVSRCADR"
	case StatusInvalidDestinationAddress:
		return "ESME_RINVDSTADR"
	case StatusInvalidMessageID:
		return "ESME_RINVMSGID"
	case StatusBindFailed:
		return "ESME_RBINDFAIL"
	case StatusInvalidPassword:
		return "ESME_RINVPASWD"
	case StatusInvalidSystemID:
		return "ESME_RINVSYSID"
	case StatusCancelFailed:
		return "ESME_RCANCELFAIL"
	case StatusReplaceFailed:
		return "ESME_RREPLACEFAIL"
	case StatusQueueFull:
		return "ESME_RMSGQFUL"
	case StatusInvalidServiceType:
		return "ESME_RINVSERTYP"
	case StatusInvalidNumberOfDestinations:
		return "ESME_RINVNUMDESTS"
	case StatusInvalidDistributionList:
		return "ESME_RINVDLNAME"
	case StatusInvalidDestinationFlag:
		return "ESME_RINVDESTFLAG"
	case StatusInvalidSubmitWithReplace:
		return "ESME_RINVSUBREP"
	case StatusInvalidESMClass:
		return "ESME_RINVESMCLASS"
	case StatusCannotSubmitToList:
		return "ESME_RCNTSUBDL"
	case StatusSubmitFailed:
		return "ESME_RSUBMITFAIL"
	case StatusInvalidSourceTON:
		return "ESME_RINVSRCTON"
	case StatusInvalidSourceNPI:
		return "ESME_RINVSRCNPI"
	case StatusInvalidDestinationTON:
		return "ESME_RINVDSTTON"
	case StatusInvalidDestinationNPI:
		return "ESME_RINVDSTNPI"
	case StatusInvalidSystemType:
		return "ESME_RINVSYSTYP"
	case StatusInvalidReplaceFlag:
		return "ESME_RINVREPFLAG"
	case StatusInvalidNumberOfMessages:
		return "ESME_RINVNUMMSGS"
	case StatusThrottled:
		return "ESME_RTHROTTLED"
	case StatusInvalidSchedule:
		return "ESME_RINVSCHED"
	case StatusInvalidExpiry:
		return "ESME_RINVEXPIRY"
	case StatusInvalidDefaultMessageID:
		return "ESME_RINVDFTMSGID"
	case StatusReceiverTemporary:
		return "ESME_RX_T_APPN"
	case StatusReceiverPermanent:
		return "ESME_RX_P_APPN"
	case StatusReceiverRejected:
		return "ESME_RX_R_APPN"
	case StatusQueryFailed:
		return "ESME_RQUERYFAIL"
	case StatusInvalidTLVStream:
		return "ESME_RINVOPTPARSTREAM"
	case StatusTLVNotAllowed:
		return "ESME_ROPTPARNOTALLWD"
	case StatusInvalidTLVLength:
		return "ESME_RINVPARLEN"
	case StatusMissingTLV:
		return "ESME_RMISSINGOPTPARAM"
	case StatusInvalidTLVValue:
		return "ESME_RINVOPTPARAMVAL"
	case StatusDeliveryFailure:
		return "ESME_RDELIVERYFAILURE"
	case StatusUnknownError:
		return "ESME_RUNKNOWNERR"
	case StatusServiceTypeUnauthorised:
		return "ESME_RSERTYPUNAUTH"
	case StatusProhibited:
		return "ESME_RPROHIBITED"
	case StatusServiceTypeUnavailable:
		return "ESME_RSERTYPUNAVAIL"
	case StatusServiceTypeDenied:
		return "ESME_RSERTYPDENIED"
	case StatusInvalidDataCoding:
		return "ESME_RINVDCS"
	case StatusInvalidSourceSubunit:
		return "ESME_RINVSRCADDRSUBUNIT"
	case StatusInvalidDestinationSubunit:
		return "ESME_RINVDSTADDRSUBUNIT"
	case StatusInvalidBroadcastFrequency:
		return "ESME_RINVBCASTFREQINT"
	case StatusInvalidBroadcastAlias:
		return "ESME_RINVBCASTALIAS_NAME"
	case StatusInvalidBroadcastAreaFormat:
		return "ESME_RINVBCASTAREAFMT"
	case StatusInvalidNumberOfBroadcastAreas:
		return "ESME_RINVNUMBCAST_AREAS"
	case StatusInvalidBroadcastContentType:
		return "ESME_RINVBCASTCNTTYPE"
	case StatusInvalidBroadcastMessageClass:
		return "ESME_RINVBCASTMSGCLASS"
	case StatusBroadcastFailed:
		return "ESME_RBCASTFAIL"
	case StatusBroadcastQueryFailed:
		return "ESME_RBCASTQUERYFAIL"
	case StatusBroadcastCancelFailed:
		return "ESME_RBCASTCANCELFAIL"
	case StatusInvalidBroadcastRepeats:
		return "ESME_RINVBCAST_REP"
	case StatusInvalidBroadcastServiceGroup:
		return "ESME_RINVBCASTSRVGRP"
	case StatusInvalidBroadcastChannel:
		return "ESME_RINVBCASTCHANIND"
	default:
		return ""
	}
}
