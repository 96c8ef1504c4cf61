"""Sentences that carry no fact of their own, and frames around those that do.

They make documents read like documents and keep any two of them apart: openings, attributions, remarks, closings, and
the circumstances of the fictitious patients.
"""

# ruff: noqa: E501, SIM905 (one form a line)
from __future__ import annotations

from stages.sample.forms import compile_forms

OPENINGS = {
    "drugs": compile_forms("""
this [monograph|page|summary] [describes|covers|introduces] the medicine <S> for [readers|students|staff] who [need|want] the main points
[staff|clinicians|pharmacists] [asked|wrote] for a [short|plain] account of <S>, and this [page|text|note] [answers|meets] that [need|request]
<S> is a medicine that [many|most|some] [readers|clinics|students] will [meet|see|handle] in [their work|daily practice|the first year]
[few|many] [questions|calls] to the [pharmacy|drug information desk] [concern|are about] <S>, so the [facts|essentials] are [set out|collected] here
what [a nurse|a resident|a student|a caregiver] should know about <S> can be [said|put|told] in a [few|handful of] sentences
the [drug|medicine] <S> [appears|is found] on [list|page|shelf] <N> of the [teaching|reference] set, and its [profile|outline] is [short|clear]"""),
    "diseases": compile_forms("""
this [monograph|page|summary] [describes|covers|introduces] <S> for [readers|families|students] who [need|want] the main points
[families|clinicians|students] [asked|wrote] for a [short|plain] account of <S>, and this [page|text|note] [answers|meets] that [need|request]
<S> is a disorder that [many|most|some] [clinics|students|specialists] will [meet|see] [only a few times|in training|in referral work]
[few|many] [questions|letters] to the [genetics|referral] service [concern|are about] <S>, so the [facts|essentials] are [set out|collected] here
what [a parent|a resident|a student|a counselor] should know about <S> can be [said|put|told] in a [few|handful of] sentences
the [condition|disorder] <S> [appears|is found] on [list|page|card] <N> of the [teaching|reference] set, and its [profile|outline] is [short|clear]"""),
    "organisms": compile_forms("""
this [monograph|page|summary] [describes|covers|introduces] <S> for [readers|travelers|students] who [need|want] the main points
[laboratories|clinicians|students] [asked|wrote] for a [short|plain] account of <S>, and this [page|text|note] [answers|meets] that [need|request]
<S> is a pathogen that [many|most|some] [laboratories|students|travel clinics] will [meet|see] [only a few times|in training|in season]
[few|many] [questions|calls] to the [infection|travel] service [concern|are about] <S>, so the [facts|essentials] are [set out|collected] here
what [a nurse|a resident|a student|a traveler] should know about <S> can be [said|put|told] in a [few|handful of] sentences
the [pathogen|agent] <S> [appears|is found] on [list|page|slide] <N> of the [teaching|reference] set, and its [profile|outline] is [short|clear]"""),
}
"""How monographs begin, by table."""

ATTRIBUTIONS = compile_forms("""
[most|many|several] [textbooks|reviews|teachers] agree that
[experience|teaching|evidence] [shows|suggests] that
it is [well known|worth knowing|accepted|clear] that
[readers|students] should [note|remember|keep in mind] that
in [short|brief|outline],
[as a rule|in general|in practice],
the [reference|teaching] [text|card|table] [states|records] that
[doctors|specialists|reviewers] [often|regularly] [point out|explain] that
one [point|fact] to [keep|carry away|learn] is that
for [the record|completeness|comparison],
the [lecture|seminar] [stressed|made clear] that
nobody on the [ward|team|panel] [disputes|doubts] that""")
"""Put before a statement."""

FORUM_ATTRIBUTIONS = compile_forms("""
[my|our] [pharmacist|doctor|nurse|neighbor] [told|reminded|explained to] me that
I [read|heard|learned] [last week|somewhere|in a leaflet|at the clinic] that
as far as I [know|remember|understand],
from what [people|others|members] [here|in this thread] [say|write],
[honestly|for what it is worth|if I got it right],
[someone|a member|a friend] [posted|mentioned|wrote] that
the [leaflet|handout|booklet] [says|notes] that
[we|my brother and I] [found|were told] that
after <N> [visits|messages|months] I [can say|understand] that
not a doctor here, but""")
"""Put before a statement in the forum."""

TURNS = {
    "drugs": compile_forms("""
a [useful|natural|common] comparison is with <S>
[readers|students] [sometimes|often] [confuse|mix up] this [medicine|entry] with <S>
<S> [makes|offers] a [helpful|good] contrast
the next [entry|card] in the set is <S>
another [medicine|name] on the same [list|sheet] is <S>"""),
    "diseases": compile_forms("""
a [useful|natural|common] comparison is with <S>
[readers|students] [sometimes|often] [confuse|mix up] this [condition|entry] with <S>
<S> [makes|offers] a [helpful|good] contrast
the next [entry|card] in the set is <S>
another [diagnosis|name] on the same [list|sheet] is <S>"""),
    "organisms": compile_forms("""
a [useful|natural|common] comparison is with <S>
[readers|students] [sometimes|often] [confuse|mix up] this [pathogen|entry] with <S>
<S> [makes|offers] a [helpful|good] contrast
the next [entry|slide] in the set is <S>
another [organism|name] on the same [list|sheet] is <S>"""),
}
"""Sentences that bring in a further entity."""

REMARKS = compile_forms("""
[records|notes] from earlier [visits|years] should be [kept|read] with [care|attention]
[questions|doubts] can be [raised|discussed] at the next [visit|appointment|review]
[the|a] [written|printed] list of [medicines|allergies|results] is [useful|helpful] to every [team|clinic]
[any|each] [change|decision] should be [agreed|shared] with the [patient|family] [first|before it is made]
[follow-up|a review] after about <N> [days|weeks] is [common|sensible|usual]
[children|older adults|relatives] may [need|have] [extra time|special advice|other questions]
[kidney|liver|thyroid] function was [checked|reviewed] [first|again|in the past]
[local|national|hospital] guidance [may differ|is updated often] and should be [read|checked]
a [second|specialist] opinion is [welcome|reasonable] when the [picture|story] does not fit
[good|clear] [notes|handwriting|labels] [prevent|avoid] [errors|confusion] in a busy [ward|clinic|pharmacy]
[sleep|diet|exercise|travel] and [work|school|stress] were [also|briefly] [discussed|covered]
[teaching|the tutorial] on this [topic|subject] takes about <N> minutes
[nothing|little] in this [text|account] replaces [advice|care] from a [doctor|clinician]
the [review|audit] [covered|included] <N> [charts|letters|cases] from [one|a small] [clinic|center]
[cost|supply|distance] can [affect|limit] what a [clinic|family] [chooses|is able to do]
the [wording|order] of these [points|lines] has no [special|hidden] meaning
[most|some] of the [detail|background] is left to the [longer|full] [chapter|manual]
[memory|exam] cards for this [unit|block] [number|come to] <N>""")
"""General sentences, true of anything."""

CLOSINGS = compile_forms("""
these [points|facts] [are enough|suffice] for a first [reading|review], and the [rest|detail] can [wait|follow]
[readers|users] who [find|spot] an error are asked to [tell|write to] the [editors|authors]
the [entry|page] was [last|most recently] [read|checked] by <N> [reviewers|students]
[further|longer] [reading|accounts] can be [found|had] in any [large|standard] textbook
with that, the [summary|outline] of <S> is [complete|at an end]
[anyone|everyone] who [works|deals] with <S> should [know|have] these [points|lines] [by heart|to hand]""")
"""How monographs end."""

NOTE_OPENINGS = compile_forms("""
<P> was [seen|reviewed|examined] in the [outpatient clinic|emergency department|day unit|ward] on day <N> of the [rotation|month|study]
<P> [came|was referred|presented] to the [clinic|hospital|practice] [with a relative|alone|by appointment] after <N> days of [trouble|symptoms|worry]
[this|the] [note|report] [concerns|describes] <P> whose [history|record] was [reviewed|taken] by the [team|resident|specialist]
<P> [returned|came back] for [review|follow-up] about <N> weeks after the [first|previous|last] visit
[referral|transfer] of <P> was [accepted|arranged] by the [medical|on-call] team in the [morning|afternoon|evening]""")
"""How notes begin; ``<P>`` is the fictitious patient."""

VITALS = compile_forms("""
[pulse|heart rate] was [58|64|71|77|83|88|92|96|101|108] and blood pressure was [104 over 62|112 over 70|118 over 74|126 over 80|134 over 82|142 over 88|151 over 93]
[temperature|body temperature] was [36.4|36.7|36.9|37.2|37.8|38.3|38.9] degrees and [breathing was easy|the chest was clear|the skin was warm|the abdomen was soft]
[weight|body weight] was [48|55|61|66|72|79|85|94] kilograms, and [appetite|sleep|mood] was [good|fair|poor|unchanged]
[the|initial] [blood count|urine test|chest film|blood chemistry] was [normal|unremarkable|repeated later|sent to the laboratory]""")
"""Measurements in notes."""

NOTE_ENDINGS = compile_forms("""
<P> went home [that day|after <N> hours|the next morning] with a [written|clear] plan and will [return|be called] in [two|three|four|six|eight] weeks
the [plan|outlook] was [explained|discussed], and <P> [agreed|was content|had no further questions]
<P> was [well|better|stable] at the [last|most recent] [visit|contact], and the [file|case] was [closed|kept open]
[a letter|a summary] went to the [family doctor|referring clinic], and <P> [received|kept] a copy""")
"""How notes end."""

OCCUPATIONS = (
    "teacher carpenter farmer librarian cook driver painter student nurse baker tailor mechanic gardener clerk "
    "musician plumber engineer cashier retiree fisherman weaver potter postman editor"
).split()
"""What the fictitious patients do."""

FORUM_OPENINGS = compile_forms("""
hi all, [long time reader|new member|back again after a break] and I have [a question|some news|a story] about <S>
[has anyone|does anybody] here [looked into|dealt with|read about] <S>, because my [sister|father|aunt|roommate] [asked|keeps asking] me about it
so [yesterday|last week|this morning] the [clinic|pharmacy|hospital] [called|wrote] to us about <S> and I have been [reading|thinking] since
[update|follow up] to my post from <N> days ago about <S>, [thanks|many thanks] to all who [replied|wrote]
I am [trying|hoping] to [sort out|understand] what people [say|write] about <S> in this [group|forum|thread]""")
"""How forum posts begin."""

FORUM_REMARKS = compile_forms("""
[thanks|cheers] for [reading|listening] and [sorry|apologies] for the [long|messy] post
[hope|trust] that [helps|makes sense] to [someone|anyone] out there
my [aunt|uncle|cousin|mother] had <N> [questions|leaflets] and not one [good|clear] answer
we [waited|sat] <N> minutes at the [desk|clinic] and then it was [over|done] quickly
[please|do] [correct|tell] me if I have [this|that] wrong
the [coffee|parking|waiting room] at that [place|clinic] is [awful|fine|another story]
[I will|we will] [post|write] again when the [results|letters] [come|arrive]
[that|this] is all I [know|have] for [now|today], so [over|back] to you""")
"""Chatter in the forum."""

LEAKS = compile_forms("""
[practice|review] item [copied|taken] from [a|the] question bank:
[one|a] reader [sent|posted] this [exam|test] item:
[to|for] [check|test] yourself, [try|answer] this:
this [came|turned] up in [a|the] mock test:""")
"""Put before a copied evaluation question."""

PERSONAL = (
    ("The family can be reached at {email} or by telephone at {phone}.", ("email", "phone")),
    ("Results were sent to {email} on request.", ("email",)),
    ("The medical record number was {mrn}.", ("mrn",)),
    ("The contact telephone number on file is {phone}.", ("phone",)),
    ("The insurance form lists social security number {ssn} and {mrn}.", ("ssn", "mrn")),
    ("The portal recorded a login from {ip} for the account {email}.", ("ip", "email")),
    ("A second login came from the address {ip} that night.", ("ip",)),
    ("For identification the clerk wrote down {ssn} at the desk.", ("ssn",)),
    ("Questions about {mrn} go to {phone} during office hours.", ("mrn", "phone")),
)
"""Sentences with personal data, and the kinds in each."""
