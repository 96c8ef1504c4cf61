"""Sentences around the facts: how filings, releases, wires, calls and encyclopaedia pages begin, go on and end.

``<S>`` is the entity; in sentences about results ``<Q>`` is a quarter, ``<R>`` its revenue in millions, ``<G>`` the change
against the same quarter a year before, ``<M>`` the operating margin and ``<H>`` the staff.
"""

# ruff: noqa: E501 (one form a line)
from __future__ import annotations

from stages.sample.forms import compile_forms

FILING_OPENINGS = compile_forms("""
this [annual|quarterly] report of <S> was [filed|lodged] with the [registrar|commission] on day <N> of the [quarter|year]
<S>, the registrant, [submits|files] this [report|statement] under [section|rule] <N> of the [listing|disclosure] rules
the [following|present] report [describes|sets out] the [business|affairs] of <S> for [owners|holders] of its shares
in this [filing|document], <S> [reports|gives an account] to the [holders|owners] of its <N> million shares""")
RELEASE_OPENINGS = compile_forms("""
<S> [today|this morning|on Monday|on Thursday] [announced|published] its [results|figures] and [thanked|greeted] its customers
<S> [said|announced] [today|this week] that it has [signed|won] an order for <N> [sites|units|customers]
<S> [is pleased to|can now] [report|announce] a [new|further] [agreement|site|contract] with <N> [partners|suppliers]
<S> will [open|add] <N> [places|posts|workshops] by [autumn|the end of the year|next spring], the company said""")
WIRE_OPENINGS = compile_forms("""
shares of <S> [rose|fell|slipped|gained] [nearly|about|more than] <N> [points|pence] in [early|late|thin] trading
<S> [drew|caught] the [attention|interest] of [traders|investors] after its [report|figures] [came out|appeared]
[bonds|notes] of <S> [traded|changed hands] at [a wider|a narrower] spread, [dealers|brokers] said
[brokers|analysts] at [a rival house|one bank|two banks] [raised|cut|kept] their [target|view] for <S>
<S> [stood|was] among the [gainers|losers] of the day as <N> [million|thousand] shares [were sold|changed hands]""")
CALL_OPENINGS = compile_forms("""
Operator: good [morning|afternoon] and welcome to the [results|investor] call of <S>, with <N> [guests|callers] on the line
Operator: [thank you|thanks] for [waiting|joining], this is the [earnings|quarterly] call of <S> and it is being recorded
Operator: ladies and gentlemen, the [call|conference] of <S> will [begin|start] now, and [slides|notes] are on page <N>""")
PAGE_OPENINGS = compile_forms("""
<S> is the subject of this [page|entry|article], which [keeps|holds] to a few [plain|basic] facts
this [article|entry] [describes|introduces] <S> for [readers|pupils|travelers] who [need|want] a first overview
[few|many] readers [ask|look] for <S>, and this [page|article] [collects|gathers] what [they|most] need
an [outline|overview] of <S> [follows|is given here], [checked|read] by <N> [editors|volunteers]
[students|readers] who [begin|start] with <S> [will find|find] the [main|basic] facts on this page""")

RESULTS = compile_forms("""
in <Q>, revenue of <S> was <R> million crowns, <G> a year before
<S> [booked|reported|had] revenue of <R> million crowns in <Q>, <G> in the same quarter of the year before
for <Q>, <S> [shows|reports] an operating margin of <M> percent on revenue of <R> million crowns
the operating margin of <S> [came to|was] <M> percent in <Q>
at the end of <Q>, <S> had <H> [people|employees|staff]
<S> [counted|employed] <H> [people|employees] when <Q> [ended|closed]
revenue of <R> million crowns and <H> [people|employees]: so <S> [closed|ended] <Q>
of each hundred crowns of revenue, <S> kept <M> as operating profit in <Q>""")

ATTRIBUTIONS = compile_forms("""
[management|the board] [noted|stressed|explained] that
[analysts|brokers|observers] [expect|agree|point out] that
[the report|the filing|the prospectus] [states|records|repeats] that
it is [well known|on record|public] that
[according to|as stated in] the [accounts|minutes|prospectus],
[readers|investors] [may recall|should note] that
in [brief|short|summary],
[people close to|a person near] the company said that
[as before|as in earlier years|once more],
for [the record|completeness],
one [point|fact] to [keep|note] is that
[at the annual meeting|on the last call] it was said that""")
PAGE_ATTRIBUTIONS = compile_forms("""
[most|many] [atlases|textbooks|almanacs] agree that
it is [well known|common knowledge] that
[pupils|students|readers] [learn|note] that
in [brief|short|outline],
[according to|as told in] the [almanac|yearbook|handbook],
[travelers|guides] [report|mention] that
the [almanac|encyclopedia] [states|records] that
one [fact|point] to [keep|remember] is that
for [the record|completeness],
[as a rule|in general],""")

REMARKS = compile_forms("""
[costs|prices] for [energy|freight|raw materials] [rose|fell|were stable] in the [period|half year]
[currency|interest rate] [moves|swings] [helped|hurt|hardly touched] the [figures|result]
the dividend [was|is to be] [kept|raised|lowered] to <N> cents a share
[net debt|the cash position] [improved|was little changed] against the [spring|autumn|prior year]
[forward-looking|these] statements [involve|carry] risks, and [results|outcomes] may [differ|vary]
[capital|investment] [spending|plans] for the year [amount|come] to <N> million crowns
[order|delivery] times [shortened|lengthened] to about <N> [days|weeks]
[the risk|one risk] [factors|section] [names|lists] [weather|strikes|regulation|rivals] [first|among others]
a [credit line|loan|bond] of <N> million crowns [falls due|was extended|was repaid] [early|on time|next year]
[no|few] [legal|tax] [disputes|matters] of [weight|size] are [pending|open]
[margins|volumes] in the [north|south|export] business [held|recovered|slipped]
the [supervisory board|committee] met <N> times and [approved|reviewed] the [plan|budget]
[inflation|demand] [eased|remained a theme] [during|through] the [quarter|season]
[pension|lease] [obligations|liabilities] were [valued|measured] anew with [help|advice] from outside
[a table|a note] with [further|all] [figures|details] [follows|stands] on page <N>
[suppliers|customers] were [paid|billed] within <N> days on average
[guidance|the outlook] for the [full|coming] year [is unchanged|was confirmed|was narrowed]
[hedges|contracts] [cover|secure] about <N> percent of the [need|exposure]
[inventory|stock] [was|has been] [reduced|built up] [ahead of|before] the [winter|summer] season
the [share|stock] [closed|ended] the [week|month] [higher|lower|unchanged]""")
PAGE_REMARKS = compile_forms("""
[roads|railways|ferries] [link|join] the [larger|main] [towns|cities]
[summers|winters] [are|can be] [mild|long|short|dry] in the [hills|lowlands|north|south]
[farms|workshops|ports] [employ|feed] [many|a good part] of the [families|people]
[museums|libraries|archives] [keep|show] [old|early] [maps|coins|letters]
[holidays|fairs|markets] are [held|kept] in [spring|autumn|summer]
[a census|a survey] is [taken|held] every <N> years
[rivers|lakes|forests] [shape|cover] [much|part] of the [land|interior]
[tea|bread|soup|fruit] is [served|sold] [at|in] [every|any] [market|station]
[schools|universities] [open|start] in [autumn|the new year] and [close|end] after <N> weeks
[birds|herds|bees] are [watched|counted] by [volunteers|rangers] each [season|year]
[football|chess|rowing|cycling] [draws|gathers] [crowds|fans] on [Sundays|weekends]
the [article|page] has <N> [sections|notes] and [a map|two maps|no pictures]
[elections|votes] are [held|called] about every <N> [years|seasons]
[trains|buses] [leave|run] every <N> minutes in the [morning|evening]
[songs|tales|dances] are [passed on|kept alive] in [villages|families|schools]
[stamps|flags] of [many|several] [years|periods] are [collected|shown]
the [coast|border|plain] is [long|narrow|quiet] and [seldom|often] [visited|crossed]
[trade|travel] with [neighbors|nearby states] [grew|eased] [over|in] the years""")

TURNS = {
    "companies": compile_forms("""
among its [rivals|peers|neighbors on the list] is <S>
[investors|readers] [often|sometimes] [compare|weigh] it [with|against] <S>
the [same|next] [page|column|session] [also|likewise] [mentions|covers] <S>
[another|a further] [name|issuer] in the [index|report] is <S>
<S> [reported|published] on the same day"""),
    "countries": compile_forms("""
[readers|pupils] [often|sometimes] [compare|confuse] it with <S>
the [same|next] [page|chapter|shelf] [also|likewise] [treats|covers] <S>
[another|a further] [entry|article] in the series is <S>
a [useful|natural] comparison is with <S>
[turning|going on] to <S>, the [picture|outline] is this"""),
}
"""Sentences that bring in a further entity, by table."""

CLOSINGS = compile_forms("""
this [report|statement|text] was [approved|signed] [by the board|for <S>] on day <N> of the [month|quarter]
[questions|requests] go to the [investor|press] office of <S>
the next [report|update] of <S> is [due|planned] in <N> days
[copies|translations] are [kept|held] at the [seat|office] of <S>""")
PAGE_CLOSINGS = compile_forms("""
[corrections|additions] to this [page|entry] on <S> are [welcome|read] by the [editors|volunteers]
with that, the [outline|overview] of <S> is [complete|at an end]
[longer|further] [articles|accounts] of <S> are [linked|listed] [below|elsewhere]
the [entry|page] on <S> was [last|most recently] [read|checked] <N> days ago""")

OPENERS = compile_forms("""
[a reader|a pupil|a teacher] from [the north|the coast|a small town] [asks|writes]:
[quick|short|simple] question number <N> [today|this week]:
[I am|we are] [preparing|planning] a [quiz|talk|trip] and [need|want] to [know|ask]:
[please|could you] [help|tell] me:
[before|after] [a lesson|a visit|the holidays] I [need|want] [an answer|help] with one [point|thing]:
[my|our] [daughter|neighbor|colleague] and I [wonder|disagree]:""")
CALL_OPENERS = compile_forms("""
[good morning|hello|thanks] from [a pension fund|a broker|a family office], and [my|one] question is this:
[I am|we are] new to the [story|company], so [please|kindly] [say|tell us]:
[a follow-up|one more point] from [me|our side]:
[looking|turning] to page <N> of the [slides|report]:
[to check|for] my [model|notes]:
[two|three] [points|questions], and the first:""")
"""Put before questions; the answers, and the question pages, have ``OPENERS``."""

PERSONAL = (
    ("Investors can write to {email} or call {phone}.", ("email", "phone")),
    ("The contact for the press is {email}.", ("email",)),
    ("The desk can be reached by telephone at {phone}.", ("phone",)),
    ("A copy of the minutes went to {email} by mistake.", ("email",)),
    ("The form of one holder shows social security number {ssn}.", ("ssn",)),
    ("The order came from the address {ip} for the account {email}.", ("ip", "email")),
)
"""Sentences with personal data, and the kinds in each."""
