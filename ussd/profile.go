package ussd

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"zvonok/gateway/smpp"
)

// Operations of ussd_service_op 0x0501 (SMPP 5.0 section 4.8.4.63, MAP names of 3GPP TS 29.002).
const (
	opPSSD         = 0  // PSSD indication: a phase 1 phone dials; one answer, no menu
	opPSSR         = 1  // PSSR indication: the phone dials, the dialogue begins
	opUSSR         = 2  // USSR request: text and wait for input
	opUSSN         = 3  // USSN request: text alone
	opPSSDResponse = 16 // closes a phase 1 dialogue
	opPSSRResponse = 17 // last text, closes the dialogue
	opUSSRConfirm  = 18 // what the person typed
	opUSSNConfirm  = 19 // shown
)

// Limits are the largest page of a profile. The hard stop is what the air interface carries, 160 octets of USSD string
// (3GPP TS 24.080): 182 septets, 80 UCS-2 units. Screens are planned for less, since some layers carry less and old
// phones show less.
type Limits struct {
	GSM7 int // septets, page with footer
	UCS2 int // UTF-16 units, page with footer
}

const (
	maxGSM7 = 182
	maxUCS2 = 80
	// Below these the keys and a few words have no room beside each other.
	minPageGSM7 = 60
	minPageUCS2 = 60
)

// ITS is how a gateway uses its_session_info 0x1383, whose second octet holds the end bit (SMPP 3.4 section 5.3.2.43).
type ITS string

// The uses of its_session_info that were seen.
const (
	ITSNumber ITS = "number" // octet 1 names the session, octet 2 comes back as it is but for the end bit
	ITSWide   ITS = "wide"   // all but the end bit name the session
	ITSUnits  ITS = "units"  // as the specification has it: octet 1 names the session, octet 2 counts our units by two
)

// Profile is how one kind of gateway speaks USSD. It is data: what a new gateway does otherwise becomes a row here or
// in the settings, not a branch in the code. Codes and shortcuts need no column, since dialled finds them wherever they
// stand.
type Profile struct {
	Name string
	Seen string // where this behaviour was observed

	// What comes in, as values of ussd_service_op. An operation in none of the lists is unclear.
	Begin   []byte
	Input   []byte
	Confirm []byte
	Abort   []byte
	// AbortText begins the text of an abort that comes without an operation.
	AbortText string
	// EndBitAborts: an input whose end bit is set tells that the person has gone.
	EndBitAborts bool
	// Session lists the parameters that may name the dialogue; the first one present does. All of them are echoed.
	// A message with none belongs to the one dialogue its phone has.
	Session []smpp.Tag
	ITS     ITS
	// IMSI lists the parameters that are trusted to hold the IMSI of the phone's SIM card.
	IMSI []smpp.Tag

	// What goes out.
	Continue byte           // operation of a page that waits for a key
	End      byte           // operation of the last page
	Command  smpp.CommandID // 0: an answer mirrors the command its question came by
	Service  string         // service_type; "" echoes what came
	ESMClass byte
	GSM7     byte // data_coding of Latin text
	UCS2     byte // data_coding of Cyrillic text
	Limits   Limits
	// FloodCloses: begins over the limit are closed with a text each; otherwise only the first of them, and then
	// there is silence.
	FloodCloses bool
	// UnclearCloses: a message we cannot make out, such as one with an unknown operation, is answered by closing the
	// dialogue; otherwise by nothing.
	UnclearCloses bool

	// LateAck: the gateway answers a page that waits for a key only when the person has typed or given up, so an error
	// that comes late tells that the page was seen.
	LateAck bool
	// Cancelled are the statuses by which the gateway says that the person closed the dialogue: first and last.
	Cancelled [2]smpp.Status
}

// sessionTags returns the parameters that may name a dialogue, the more exact first (ussd.md 1.3).
func sessionTags() []smpp.Tag {
	return []smpp.Tag{smpp.TagUSSDSessionID, smpp.TagUserMessageReference, smpp.TagITSSessionInfo}
}

// usual is what most gateways do; the rows of the table say how each differs. Aborts of all vendors are understood
// from everybody: their values are free elsewhere, and a gateway that sends one means it.
func usual() Profile {
	return Profile{
		Begin:        []byte{opPSSR, opPSSD},
		Input:        []byte{opUSSRConfirm},
		Confirm:      []byte{opUSSNConfirm},
		Abort:        []byte{129, 33, 65, 66, 67}, // SMPP+ abort; Russian-language ESMEs; Glo hang-up, failure, reject
		AbortText:    "ABORT",
		EndBitAborts: true,
		Session:      sessionTags(),
		ITS:          ITSNumber,
		Continue:     opUSSR,
		End:          opPSSRResponse,
		GSM7:         0x00,
		UCS2:         0x08,
		Limits:       Limits{GSM7: 160, UCS2: 70},
	}
}

// table returns the profiles Zvonok knows by itself: the vendor rows of ussd.md 1.5. Missing is comviva-text, which puts
// a protocol of its own into the text and is not documented well enough to be spoken.
func table() []Profile {
	// Eyeline's statuses for a dialogue the person left, 1109 to 1113.
	eyelineCancelled := [2]smpp.Status{0x455, 0x459}
	rows := []struct {
		name, seen string
		differs    func(*Profile)
	}{
		{
			"plain-its", "NowSMS's de facto form, the TOPS manual, a Nigerian ESME",
			func(p *Profile) {},
		},
		{
			"its-units", "oserl and Wireshark's reading of SMPP 3.4 section 5.3.2.43",
			func(p *Profile) { p.ITS = ITSUnits },
		},
		{
			"tata", "vumi's default processor: the last page is op 2 too, only the end bit tells",
			func(p *Profile) { p.End = opUSSR },
		},
		{
			"sixdee", "vumi: a dialogue id of 15 bits; it ends a dialogue with 23, the 0x17 of a table read as hex",
			func(p *Profile) { p.ITS, p.Abort = ITSWide, append(p.Abort, 23) },
		},
		{
			"mica", "vumi 738, 753, 882: the reference is bumped while an old session is uncleared",
			func(p *Profile) { p.Session = []smpp.Tag{smpp.TagUserMessageReference} },
		},
		{
			"smpp+", "Comverse; Eyeline with its flag: 146 confirms in dialogues the network knows by 0x1501",
			func(p *Profile) {
				p.Input = append(p.Input, 146)
				p.IMSI = []smpp.Tag{tagIMSI}
				p.LateAck, p.Cancelled = true, eyelineCancelled
			},
		},
		{
			"eyeline", "Eyeline classic, MTS Siberia: code in ussd:377, stripped text, operations 2, 3 and 17 only",
			func(p *Profile) {
				p.Session = []smpp.Tag{smpp.TagUserMessageReference}
				p.IMSI = []smpp.Tag{tagEyelineIMSI}
				p.LateAck, p.Cancelled = true, eyelineCancelled
			},
		},
		{
			"c-gateway", "smppd: no session id, the first TLV must be 0x0501, data_coding goes to the phone as it is",
			func(p *Profile) {
				p.AbortText, p.UCS2, p.LateAck = "ABORT from mobile phone", 0x48, true
			},
		},
		{
			"ussn-end", "ESMEs for *877# and *226#: the last page is a USSN, its confirmation ends the dialogue",
			func(p *Profile) { p.End = opUSSN },
		},
		{
			"op32", "onlinecity/php-smpp 106: the last page is op 32",
			func(p *Profile) { p.End = 32 },
		},
		{
			"huawei", "jsmpp 150: USSDC over SMPP without any session id",
			func(p *Profile) {},
		},
		{
			"kz-found", "a PDU of a Tele2 KZ range: code in the destination only, service type USSD_, session 0000",
			func(p *Profile) { p.EndBitAborts, p.IMSI = false, []smpp.Tag{smpp.TagCallbackNum} },
		},
		{
			"data-sm", "Glo: every event in data_sm, text in message_payload",
			func(p *Profile) {},
		},
		{
			"raw-dcs", "gateways that hand data_coding to the phone unchanged (glushkovds/php-smpp, C gateway)",
			func(p *Profile) { p.GSM7, p.UCS2 = 0x0F, 0x48 },
		},
	}
	profiles := make([]Profile, len(rows))
	for i, row := range rows {
		p := usual()
		p.Name, p.Seen = row.name, row.seen
		row.differs(&p)
		profiles[i] = p
	}
	return profiles
}

// Profiles are the profiles by name.
type Profiles map[string]Profile

// NewProfiles returns the known profiles and those of the settings. A setting may build on one before it. The error
// names the profile, the key and what is allowed.
func NewProfiles(settings []ProfileSetting) (Profiles, error) {
	profiles := Profiles{}
	for _, p := range table() {
		profiles[p.Name] = p
	}
	for _, setting := range settings {
		if setting.Name == "" {
			return nil, fmt.Errorf("ussd profile: it has no name")
		}
		if _, taken := profiles[setting.Name]; taken {
			return nil, fmt.Errorf("ussd profile %q: the name is taken", setting.Name)
		}
		if setting.Base == "" {
			setting.Base = "plain-its"
		}
		base, err := profiles.Get(setting.Base)
		if err != nil {
			return nil, fmt.Errorf("ussd profile %q: base: %w", setting.Name, err)
		}
		p, err := setting.apply(base)
		if err != nil {
			return nil, fmt.Errorf("ussd profile %q: %w", setting.Name, err)
		}
		profiles[p.Name] = p
	}
	return profiles, nil
}

// Get returns a profile; the error of an unknown one lists those there are.
func (ps Profiles) Get(name string) (Profile, error) {
	p, ok := ps[name]
	if !ok {
		return Profile{}, fmt.Errorf("unknown profile %q: want one of %s",
			name, strings.Join(slices.Sorted(maps.Keys(ps)), ", "))
	}
	return p, nil
}
