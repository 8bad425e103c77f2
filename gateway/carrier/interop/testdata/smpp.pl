# Net::SMPP at the other end of a link: `smpp.pl listen` is an SMSC, `smpp.pl connect PORT` a gateway that binds.
# Orders come as lines of JSON, events go out in the same way. As SMSC it sends each receipt before it has answered the
# submit_sm, names the message with zeros in front, and puts no optional parameters in.
use strict;
use warnings;
use Encode qw(decode encode);
use IO::Select;
use JSON::PP;
use Net::SMPP;
use POSIX qw(strftime);

my ($mode, $port) = @ARGV;
my $json = JSON::PP->new->utf8->canonical;
$| = 1;

sub tell_of {
    my ($event, %rest) = @_;
    print $json->encode({ event => $event, %rest }), "\n";
}

tell_of('hello', version => $Net::SMPP::VERSION);

my %names = (
    Net::SMPP::CMD_submit_sm()    => 'submit_sm',
    Net::SMPP::CMD_deliver_sm()   => 'deliver_sm',
    Net::SMPP::CMD_query_sm()     => 'query_sm',
    Net::SMPP::CMD_unbind()       => 'unbind',
    Net::SMPP::CMD_enquire_link() => 'enquire_link',
);
my %binds = (
    Net::SMPP::CMD_bind_transceiver() => 'transceiver',
    Net::SMPP::CMD_bind_transmitter() => 'transmitter',
    Net::SMPP::CMD_bind_receiver()    => 'receiver',
);
my %parts;    # of long texts that wait for the others
my $session;
my $next_id        = 500;
my $next_reference = 7;

# send_request sends a request and does not wait for its answer.
sub send_request {
    my ($command, @fields) = @_;
    $session->$command(@fields, async => 1);
}

# words reads the text of a message that has no user data header any more.
sub words {
    my ($octets, $coding) = @_;
    return decode('UTF-16BE', $octets) if $coding == 8;
    return decode('gsm0338', $octets);
}

sub take_text {
    my ($pdu) = @_;
    my $octets = length $pdu->{short_message} ? $pdu->{short_message} : $pdu->{message_payload} // '';
    my ($reference, $count, $number) = (0, 1, 1);
    if ($pdu->{esm_class} & 0x40) {
        my ($length) = unpack 'C', $octets;
        my $header = substr $octets, 1, $length;
        $octets = substr $octets, $length + 1;
        while (length $header) {
            my ($id, $value) = unpack 'C C/a', $header;
            $header = substr $header, 2 + length $value;
            ($reference, $count, $number) = unpack 'CCC', $value if $id == 0;
            ($reference, $count, $number) = unpack 'nCC', $value if $id == 8;
        }
    } elsif (defined $pdu->{sar_total_segments}) {
        $reference = unpack 'n', $pdu->{sar_msg_ref_num};
        $count     = unpack 'C', $pdu->{sar_total_segments};
        $number    = unpack 'C', $pdu->{sar_segment_seqnum};
    }
    my $key = join '/', $pdu->{source_addr}, $pdu->{destination_addr}, $reference, $count;
    $parts{$key}{$number} = words($octets, $pdu->{data_coding});
    return if keys %{ $parts{$key} } < $count;
    my $whole = delete $parts{$key};
    my $text  = join '', map { $whole->{$_} } sort { $a <=> $b } keys %$whole;
    tell_of('text', from => $pdu->{source_addr}, to => $pdu->{destination_addr}, text => $text, parts => $count + 0);
}

sub send_receipt {
    my ($pdu, $id) = @_;
    my $now = strftime('%y%m%d%H%M', gmtime);
    send_request(
        'deliver_sm',
        source_addr_ton  => 1, source_addr_npi => 1, source_addr => $pdu->{destination_addr},
        destination_addr => $pdu->{source_addr},
        esm_class        => 0x04,
        short_message    => sprintf(
            'id:%010d sub:001 dlvrd:001 submit date:%s done date:%s stat:DELIVRD err:000 text:', $id, $now, $now),
    );
}

sub take_message {
    my ($pdu, $command) = @_;
    my $id     = $next_id++;
    my $answer = $command eq 'submit_sm' ? 'submit_sm_resp' : 'deliver_sm_resp';
    my $accept = sub { $session->$answer(message_id => $command eq 'submit_sm' ? $id : '', seq => $pdu->{seq}) };
    if (($pdu->{esm_class} & 0x3C) == 0x04) {
        $accept->();
        my ($named) = $pdu->{short_message} =~ /id:(\S+)/;
        my ($state) = $pdu->{short_message} =~ /stat:(\S+)/;
        return tell_of('receipt', id => $named, state => $state);
    }
    if (defined $pdu->{ussd_service_op}) {
        $accept->();
        return tell_of(
            'ussd',
            op   => unpack('C', $pdu->{ussd_service_op}),
            from => $pdu->{source_addr}, to => $pdu->{destination_addr},
            text => words($pdu->{short_message}, $pdu->{data_coding}),
            info => unpack('H*', $pdu->{its_session_info} // ''),
        );
    }
    send_receipt($pdu, $id) if $command eq 'submit_sm' && $pdu->{registered_delivery} & 1;
    $accept->();
    take_text($pdu);
}

sub take_pdu {
    my ($pdu) = @_;
    my $command = $pdu->{cmd};
    if (my $as = $binds{$command}) {
        my $known  = $pdu->{system_id} eq 'school' && $pdu->{password} eq 'secret';
        my $status = $known ? 0 : 0x0E;
        my $answer = "bind_${as}_resp";
        $session->$answer(system_id => 'perl', seq => $pdu->{seq}, status => $status);
        return tell_of('bound', as => $as, status => $status);
    }
    if ($command & 0x80000000) {
        my $name = $names{ $command & 0x7FFFFFFF } // sprintf '%#x', $command;
        my $id = $pdu->{message_id} // '';
        $id =~ s/\0.*//s;
        tell_of(
            'answered',
            command => $name, status => $pdu->{status}, id => $id, state => '' . ($pdu->{message_state} // ''),
        );
        $session->close if $name eq 'unbind';
        return;
    }
    my $name = $names{$command} // '';
    return take_message($pdu, $name) if $name eq 'submit_sm' || $name eq 'deliver_sm';
    if ($name eq 'enquire_link') {
        $session->enquire_link_resp(seq => $pdu->{seq});
        return tell_of('enquired');
    }
    if ($name eq 'unbind') {
        $session->unbind_resp(seq => $pdu->{seq});
        $session->close;
        return tell_of('unbound');
    }
    $session->generic_nack(seq => $pdu->{seq}, status => 3);
}

# cut makes pieces of at most so many UTF-16 units, none of which ends within a pair.
sub cut {
    my ($text, $units) = @_;
    my @pieces = ('');
    my $used   = 0;
    for my $character (split //, $text) {
        my $needs = ord $character > 0xFFFF ? 2 : 1;
        if ($used + $needs > $units) { push @pieces, ''; $used = 0; }
        $pieces[-1] .= $character;
        $used += $needs;
    }
    return @pieces;
}

sub send_text {
    my ($order) = @_;
    my $command = $mode eq 'listen' ? 'deliver_sm' : 'submit_sm';
    my @fields  = (
        source_addr_ton => 1, source_addr_npi => 1, source_addr => $order->{from},
        dest_addr_ton   => 3, destination_addr => $order->{to},
    );
    if ($order->{method} eq 'plain') {
        return send_request($command, @fields, short_message => encode('gsm0338', $order->{text}));
    }
    push @fields, data_coding => 8;
    if ($order->{method} eq 'payload') {
        my $payload = encode('UTF-16BE', $order->{text});
        return send_request($command, @fields, short_message => '', message_payload => $payload);
    }
    my $reference = $next_reference++;
    my @pieces    = cut($order->{text}, 66);
    for my $number (1 .. @pieces) {
        my $octets = encode('UTF-16BE', $pieces[ $number - 1 ]);
        if ($order->{method} eq 'sar') {
            send_request(
                $command, @fields, short_message => $octets,
                sar_msg_ref_num    => pack('n', $reference),
                sar_total_segments => pack('C', scalar @pieces),
                sar_segment_seqnum => pack('C', $number),
            );
            next;
        }
        my $header = $order->{method} eq 'udh8'
            ? pack('C6', 5, 0, 3, $reference, scalar @pieces, $number)
            : pack('C3nCC', 6, 8, 4, $reference, scalar @pieces, $number);
        send_request($command, @fields, esm_class => 0x40, short_message => $header . $octets);
    }
}

sub obey {
    my ($order) = @_;
    my $do = $order->{do};
    return send_text($order)                                  if $do eq 'text';
    return send_request('query_sm', message_id => $order->{id}) if $do eq 'query';
    return send_request('enquire_link')                       if $do eq 'enquire';
    return send_request('unbind')                             if $do eq 'unbind';
    return send_request(
        $mode eq 'listen' ? 'deliver_sm' : 'submit_sm',
        service_type     => 'USSD',
        source_addr_ton  => 1, source_addr_npi => 1, source_addr => $order->{from},
        destination_addr => $order->{to},
        short_message    => length($order->{text} // '') ? $order->{text} : $order->{to},
        ussd_service_op  => pack('C', $order->{op}),
        its_session_info => pack('CC', $order->{session}, 0),
    ) if $do eq 'dial';
}

my $select = IO::Select->new(\*STDIN);
my $listening;
if ($mode eq 'listen') {
    $listening = Net::SMPP->new_listen('127.0.0.1', port => 0) or die "listen: $!";
    $select->add($listening);
    tell_of('listening', port => $listening->sockport + 0);
} else {
    my $answer;
    ($session, $answer) = Net::SMPP->new_transceiver(
        '127.0.0.1', port => $port, system_id => 'gate', password => 'secret', system_type => '')
        or die "connect: $!";
    tell_of('bound', as => 'transceiver', status => $answer->{status});
    $select->add($session);
}

my $orders = '';
while (1) {
    for my $ready ($select->can_read) {
        if ($listening && $ready == $listening) {
            $session = $listening->accept or die "accept: $!";
            $select->add($session);
        } elsif ($session && $ready == $session) {
            my $pdu = $session->read_pdu;
            take_pdu($pdu) if $pdu;
            if (!$pdu || !$session->opened) {
                $select->remove($ready);
                close $ready;
                undef $session;
                tell_of('closed');
            }
        } else {
            exit 0 unless sysread STDIN, $orders, 65536, length $orders;
            obey($json->decode($1)) while $orders =~ s/\A([^\n]*)\n//;
        }
    }
}
