package ussd

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"zvonok/gateway/smpp"
)

// ProfileSetting is a profile of the settings: a known one under a new name with what differs. Fields left out stay as
// they are in the base.
type ProfileSetting struct {
	Name          string   `toml:"name"`
	Base          string   `toml:"base"` // "" is plain-its
	BeginOps      []int    `toml:"begin_ops"`
	InputOps      []int    `toml:"input_ops"`
	ConfirmOps    []int    `toml:"confirm_ops"`
	AbortOps      []int    `toml:"abort_ops"`
	AbortText     *string  `toml:"abort_text"`
	EndBitAborts  *bool    `toml:"end_bit_aborts"`
	Session       []string `toml:"session"` // of ussd_session_id, user_message_reference, its_session_info
	ITS           string   `toml:"its"`     // number, wide or units
	IMSI          []string `toml:"imsi"`    // of callback_num, imsi, eyeline_imsi; [] when none is to be believed
	ContinueOp    *int     `toml:"continue_op"`
	EndOp         *int     `toml:"end_op"`
	ESMClass      *int     `toml:"esm_class"`
	GSM7          *int     `toml:"data_coding_latin"`
	UCS2          *int     `toml:"data_coding_cyrillic"`
	Service       *string  `toml:"service_type"`
	Command       string   `toml:"command"` // submit_sm, deliver_sm or data_sm
	MaxGSM7       *int     `toml:"max_latin"`
	MaxUCS2       *int     `toml:"max_cyrillic"`
	FloodCloses   *bool    `toml:"flood_closes"`
	UnclearCloses *bool    `toml:"unclear_closes"`
	LateAck       *bool    `toml:"late_ack"`
	Cancelled     []int    `toml:"cancelled"` // first and last status
}

// apply returns a profile with what the setting changes in it. The error names the key and what is allowed.
func (s *ProfileSetting) apply(p Profile) (Profile, error) {
	p.Name, p.Seen = s.Name, "settings"
	for _, change := range []func(*Profile) error{s.operations, s.octets, s.sizes, s.session, s.imsi, s.command, s.words, s.cancelled} {
		if err := change(&p); err != nil {
			return p, err
		}
	}
	set(&p.EndBitAborts, s.EndBitAborts)
	set(&p.FloodCloses, s.FloodCloses)
	set(&p.UnclearCloses, s.UnclearCloses)
	set(&p.LateAck, s.LateAck)
	return p, nil
}

// operations sets the lists of operations that come in.
func (s *ProfileSetting) operations(p *Profile) error {
	for _, list := range []struct {
		key  string
		from []int
		to   *[]byte
	}{
		{"begin_ops", s.BeginOps, &p.Begin},
		{"input_ops", s.InputOps, &p.Input},
		{"confirm_ops", s.ConfirmOps, &p.Confirm},
		{"abort_ops", s.AbortOps, &p.Abort},
	} {
		if list.from == nil {
			continue
		}
		*list.to = make([]byte, len(list.from))
		for i, n := range list.from {
			if err := setWithin(list.key, &(*list.to)[i], &n, 0, 255); err != nil {
				return err
			}
		}
	}
	return nil
}

// octets sets what is one octet of what goes out.
func (s *ProfileSetting) octets(p *Profile) error {
	for _, octet := range []struct {
		key  string
		from *int
		to   *byte
	}{
		{"continue_op", s.ContinueOp, &p.Continue},
		{"end_op", s.EndOp, &p.End},
		{"esm_class", s.ESMClass, &p.ESMClass},
		{"data_coding_latin", s.GSM7, &p.GSM7},
		{"data_coding_cyrillic", s.UCS2, &p.UCS2},
	} {
		if err := setWithin(octet.key, octet.to, octet.from, 0, 255); err != nil {
			return err
		}
	}
	return nil
}

// sizes sets the largest page.
func (s *ProfileSetting) sizes(p *Profile) error {
	if err := setWithin("max_latin", &p.Limits.GSM7, s.MaxGSM7, minPageGSM7, maxGSM7); err != nil {
		return err
	}
	return setWithin("max_cyrillic", &p.Limits.UCS2, s.MaxUCS2, minPageUCS2, maxUCS2)
}

// session sets which parameters name a dialogue, and how.
func (s *ProfileSetting) session(p *Profile) error {
	if s.Session != nil {
		p.Session = nil
		for _, name := range s.Session {
			at := slices.IndexFunc(sessionTags(), func(t smpp.Tag) bool { return t.String() == name })
			if at < 0 {
				return fmt.Errorf("session: unknown parameter %q: want some of %v", name, sessionTags())
			}
			p.Session = append(p.Session, sessionTags()[at])
		}
	}
	switch ITS(s.ITS) {
	case "":
	case ITSNumber, ITSWide, ITSUnits:
		p.ITS = ITS(s.ITS)
	default:
		return fmt.Errorf("its: %q: want %s, %s or %s", s.ITS, ITSNumber, ITSWide, ITSUnits)
	}
	return nil
}

// imsi sets which parameters hold the IMSI.
func (s *ProfileSetting) imsi(p *Profile) error {
	if s.IMSI == nil {
		return nil
	}
	p.IMSI = nil
	for _, name := range s.IMSI {
		tag, ok := imsiTags()[name]
		if !ok {
			return fmt.Errorf("imsi: unknown parameter %q: want some of %s", name,
				strings.Join(slices.Sorted(maps.Keys(imsiTags())), ", "))
		}
		p.IMSI = append(p.IMSI, tag)
	}
	return nil
}

// command sets by which command answers go.
func (s *ProfileSetting) command(p *Profile) error {
	switch s.Command {
	case "":
	case "submit_sm":
		p.Command = smpp.CmdSubmitSM
	case "deliver_sm":
		p.Command = smpp.CmdDeliverSM
	case "data_sm":
		p.Command = smpp.CmdDataSM
	default:
		return fmt.Errorf("command: %q: want submit_sm, deliver_sm or data_sm", s.Command)
	}
	return nil
}

// cancelled sets the statuses by which the gateway says that the person closed the dialogue.
func (s *ProfileSetting) cancelled(p *Profile) error {
	switch {
	case s.Cancelled == nil:
	case len(s.Cancelled) != 2 || s.Cancelled[0] < 1 || s.Cancelled[0] > s.Cancelled[1] || s.Cancelled[1] > math.MaxUint32:
		return fmt.Errorf("cancelled: %v: want the first and the last status, such as [0x455, 0x459]", s.Cancelled)
	default:
		p.Cancelled = [2]smpp.Status{smpp.Status(s.Cancelled[0]), smpp.Status(s.Cancelled[1])}
	}
	return nil
}

// maxServiceType is the room of service_type without its NUL (SMPP 3.4 section 5.2.11).
const maxServiceType = 5

// words sets the texts.
func (s *ProfileSetting) words(p *Profile) error {
	set(&p.AbortText, s.AbortText)
	set(&p.Service, s.Service)
	if len(p.Service) > maxServiceType {
		return fmt.Errorf("service_type: %q is longer than %d octets", p.Service, maxServiceType)
	}
	return nil
}

// set overwrites a field with a setting that was given.
func set[T any](field *T, setting *T) {
	if setting != nil {
		*field = *setting
	}
}

// setWithin overwrites a field with a setting that was given, if it is in a range.
func setWithin[T byte | int](key string, field *T, setting *int, least, most int) error {
	if setting == nil {
		return nil
	}
	if *setting < least || *setting > most {
		return fmt.Errorf("%s: %d is not in %d to %d", key, *setting, least, most)
	}
	*field = T(*setting)
	return nil
}
