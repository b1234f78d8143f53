"""Walks of life in which people leave private details with firms: the words that differ from one to the next."""

from __future__ import annotations

from dataclasses import dataclass

from kdleak.data.synthetic.grammar import Phrases


@dataclass(frozen=True)
class Domain:
    """The vocabulary of one walk of life.

    firm_kinds / firm_word: how its firms are called, and what they are for short ("the agency").
    client, staff: the two people of a case. matters: what they deal with, `tails`: which one.
    number_labels, prefix: how a case is numbered. amounts: what is paid.
    past, future: what happened or will happen to the matter on a date.
    goals: what the client wants (bare infinitive). ideas: advice without a private detail. remarks: asides.
    """

    firm_kinds: tuple[str, ...]
    firm_word: str
    client: str
    staff: str
    matters: tuple[str, ...]
    tails: tuple[str, ...]
    number_labels: tuple[str, ...]
    prefix: str
    past: tuple[str, ...]
    future: tuple[str, ...]
    amounts: tuple[str, ...]
    goals: Phrases
    ideas: Phrases
    remarks: Phrases


def _domain(
    *, goals: str, ideas: str, remarks: str, firm_word: str, client: str, staff: str, prefix: str, **lists: str
) -> Domain:
    """A domain from texts whose entries are divided by semicolons."""
    split = {name: tuple(part.strip() for part in text.split(";")) for name, text in lists.items()}
    phrases = {
        name: Phrases(*(part.strip() for part in text.split(";")))
        for name, text in {"goals": goals, "ideas": ideas, "remarks": remarks}.items()
    }
    return Domain(firm_word=firm_word, client=client, staff=staff, prefix=prefix, **phrases, **split)


DOMAINS = (
    _domain(
        firm_kinds="Lettings; Homes; Property; Estates",
        firm_word="agency",
        client="tenant",
        staff="letting agent",
        matters="lease; tenancy; rental agreement; sublet",
        tails="on the garden flat; on the top-floor studio; for the house by the canal; on the flat above the bakery; "
        "for the rooms over the garage; on the cottage",
        number_labels="lease number; contract number; tenancy reference",
        prefix="LT",
        past="was signed; was renewed; was transferred; was ended early",
        future="ends; comes up for renewal; can be ended; passes to the new owner",
        amounts="monthly rent; deposit; arrears; cleaning fee",
        goals="{get|win} the deposit back; {end|leave} the lease early; {have|get} the damp in the bedroom treated; "
        "{move|settle} in without {trouble|fuss}; {bring|talk} the rent down",
        ideas="photograph {every room|each wall|the damp} {before moving|with a dated camera|at the handover}; "
        "{ask|invite} a neighbour to {witness|join} the inspection; read the meters {twice|together|on the last day}; "
        "{offer|promise} to repaint the {hall|kitchen|stairs}; "
        "compare the rent with three flats {nearby|in the street}",
        remarks="@P {complained|has complained} about {damp|noise|a dripping tap|cold rooms|a broken lift} [twice]; "
        "@Q {wants|would like} to {inspect|see|photograph} the {rooms|kitchen|cellar} {first|next week|soon}; "
        "the {boiler|heating|front door|roof} {was|has been} {repaired|replaced|checked} {at no cost|in autumn|in a "
        "hurry}",
    ),
    _domain(
        firm_kinds="Insurance; Mutual; Assurance; Cover",
        firm_word="insurer",
        client="policyholder",
        staff="claims adviser",
        matters="claim; insurance claim; damage report; compensation claim",
        tails="for the flooded cellar; for the stolen bicycle; after the kitchen fire; for the storm damage; "
        "over the broken window; for the lost luggage",
        number_labels="policy number; claim number; file number",
        prefix="PC",
        past="was filed; was approved; was reopened; was turned down",
        future="expires; will be reviewed; will be paid out; goes to an assessor",
        amounts="excess; payout; yearly premium; repair estimate",
        goals="{speed up|push forward} the claim; {contest|appeal} the refusal; lower the premium; "
        "{prove|document} the damage; {choose|find} better cover",
        ideas="{collect|gather} receipts for {everything lost|each item|the larger items}; "
        "ask {a plumber|a builder|an expert} for a written {opinion|estimate}; "
        "{draw|sketch} a plan of the {damage|rooms}; "
        "keep the damaged {parts|goods} until {the visit|the case is closed}; "
        "{read|check} the small print {again|on delays}",
        remarks="an assessor {came|called|visited} {on a Monday|without notice|after the storm} and @P was {out|at "
        "home|away}; @Q {asked for|is missing|still needs} {photos|receipts|a police report|two estimates}; "
        "@P {had|has} never {made|filed} a claim {before|in ten years|with anyone}",
    ),
    _domain(
        firm_kinds="Dental; Clinic; Medical Centre; Eye Care",
        firm_word="clinic",
        client="patient",
        staff="practice nurse",
        matters="treatment; appointment; check-up; treatment plan",
        tails="for the knee; for the back pain; after the fall; for the left eye; for two crowns; for the allergy",
        number_labels="patient number; chart number; referral number",
        prefix="MR",
        past="was booked; was moved; was completed; was called off",
        future="begins; is planned; will be repeated; is scheduled",
        amounts="treatment fee; co-payment; laboratory bill; remaining balance",
        goals="prepare for the {treatment|appointment}; {calm down|relax} before the visit; "
        "keep track of the {pills|tablets}; {recover|heal} faster; {sort|settle} the laboratory bill",
        ideas="keep a diary of {the pain|every meal|sleep}; bring a {friend|relative} along; "
        "write down {three questions|all questions} {the night before|beforehand}; "
        "{walk|stretch} ten minutes {a day|after lunch}; ask for {a second opinion|a written plan|large print}",
        remarks="@P {is allergic to|cannot take|asked about} {penicillin|aspirin|latex|iodine}; "
        "@Q {explained|went through|described} the {risks|steps|exercises} {twice|slowly|with a drawing}; "
        "@P {feels|is feeling} {better|worse|the same} since the {scan|last visit|new tablets}",
    ),
    _domain(
        firm_kinds="Bank; Credit Union; Savings; Finance",
        firm_word="bank",
        client="borrower",
        staff="loan officer",
        matters="loan; mortgage; credit line; small loan",
        tails="for the van; for the new roof; for the bakery; on the farmhouse; for the evening degree; for the boat",
        number_labels="account number; loan number; customer number",
        prefix="BK",
        past="was granted; was paid off; was extended; was frozen",
        future="falls due; matures; will be repaid; ends",
        amounts="monthly instalment; remaining debt; arrangement fee; first payment",
        goals="{pay off|clear} the loan sooner; {save|put aside} for a house; {lower|cut} the instalments; "
        "{bring|put} the accounts in order; get a better rate",
        ideas="{list|note} every {subscription|expense} for a month; "
        "{sell|rent out} the {second car|spare room|trailer}; {ask|bargain} for a fixed rate; "
        "{round up|raise} each payment {a little|by a tenth}; compare {three|four} lenders {online|on paper}",
        remarks="@P {missed|was late with} {one|two} {payment|payments} {in winter|after moving|last year}; "
        "@Q {sees no risk|is satisfied|has doubts} {so far|after the review}; "
        "@P {changed|has changed} jobs and {earns|brings home} {more|less} {now|than before}",
    ),
    _domain(
        firm_kinds="Motors; Garage; Auto Works; Cycles",
        firm_word="garage",
        client="customer",
        staff="mechanic",
        matters="repair; service; repair order; inspection",
        tails="of the grey van; on the old estate car; of the gearbox; for the brakes; on the camper; of the motorbike",
        number_labels="job number; order number; ticket number",
        prefix="JB",
        past="was ordered; was finished; was put off; was refunded",
        future="is booked; runs out; will be done; is planned",
        amounts="quoted price; parts bill; labour cost; down payment",
        goals="keep the repair {cheap|within reason}; {sell|trade in} the old car; {avoid|prevent} another breakdown; "
        "{get|collect} the car before the holidays; {dispute|question} the labour cost",
        ideas="ask for {used|rebuilt} parts; {record|film} the {rattle|noise} on the road; "
        "{wash|empty} the car {beforehand|first}; borrow a {bicycle|van} for the week; "
        "{check|top up} the oil every {Sunday|fortnight}",
        remarks="the {clutch|radiator|exhaust|battery} {failed|gave out} {on the motorway|at the lights|again} and @P "
        "{walked|took a bus}; @Q {found|suspects|ruled out} {rust|a leak|a worn belt|a loose wire}; "
        "@P {needs|wants} the {keys|car} back {by Friday|before noon|for a wedding}",
    ),
    _domain(
        firm_kinds="Freight; Logistics; Shipping; Removals",
        firm_word="carrier",
        client="customer",
        staff="dispatcher",
        matters="shipment; delivery; consignment; load",
        tails="of the piano; of twelve crates; with the oak table; of wine; with the spare parts; of old books",
        number_labels="tracking number; waybill number; shipment number",
        prefix="FR",
        past="was collected; was delivered; was held at customs; was damaged",
        future="leaves; arrives; will be collected; is due",
        amounts="freight charge; customs duty; insured value; storage fee",
        goals="{send|ship} the piano safely; {trace|find} the lost crate; {cut|halve} the freight charge; "
        "{pack|prepare} for the move; {claim|recover} the damage",
        ideas="wrap the {legs|corners|glass} in {blankets|wool|cork}; "
        "number {all|the} {boxes|crates} on {two|three} sides; "
        "{photograph|weigh} each {crate|box} {twice|at the door}; share a {lorry|container} with a neighbour; "
        "{ask for|choose} a {morning|weekday} slot",
        remarks="one {crate|box|pallet} {was|arrived} {wet|open|crushed|mislabelled} and @P {refused|accepted} it; "
        "@Q {blames|mentions} {fog|customs|a strike|a flat tyre}; "
        "the {driver|crew} {rang|waited for} @P {twice|an hour|in vain}",
    ),
    _domain(
        firm_kinds="Law; Notaries; Legal; Solicitors",
        firm_word="law office",
        client="client",
        staff="solicitor",
        matters="will; settlement; power of attorney; purchase contract",
        tails="of the late uncle; about the orchard; over the shared wall; for the corner shop; about the patent; "
        "of the estate",
        number_labels="case number; deed number; file number",
        prefix="LW",
        past="was notarised; was contested; was registered; was witnessed",
        future="takes effect; will be read; comes to court; lapses",
        amounts="retainer; court fee; agreed sum; notary fee",
        goals="{settle|end} the quarrel over the wall; {prepare|get ready} for the hearing; "
        "{share|divide} the estate fairly; {draw up|write} a simple will; {keep|hold} the legal costs low",
        ideas="{write|set down} a timeline {on one page|of events}; "
        "{suggest|propose} a mediator from {another town|the parish}; {find|look for} the {old|original} {map|deed}; "
        "{agree|settle} on one {spokesman|expert}; {list|value} the {furniture|paintings} {together|first}",
        remarks="the {brother|sister|cousin|neighbour} of @P {objects|agrees|has not replied} [so far]; "
        "@Q {advises|advised} {patience|a compromise|against a trial}; "
        "two {witnesses|pages|signatures} {were|are} {missing|in doubt} and @P {knows|knew} it",
    ),
    _domain(
        firm_kinds="College; Academy; Language School; Institute",
        firm_word="school",
        client="student",
        staff="course adviser",
        matters="course; enrolment; scholarship; evening class",
        tails="in bookkeeping; in Portuguese; in nursing; in carpentry; in marine biology; in piano",
        number_labels="student number; enrolment number; certificate number",
        prefix="ED",
        past="was confirmed; was dropped; was completed; was extended",
        future="starts; ends with an exam; opens; will be graded",
        amounts="tuition; exam fee; grant; book allowance",
        goals="pass the {exam|final exam}; {pay|find money} for the course; {learn|study} beside a full job; "
        "find a study partner; {choose|pick} the next course",
        ideas="{study|revise} in blocks of {twenty|thirty} minutes; "
        "teach {the chapter|each lesson} to a {friend|child}; {borrow|swap} the books {second hand|from last year}; "
        "{sit|practise} old {papers|exams} {on Sundays|by the clock}; join the {choir|debate club} for practice",
        remarks="@P {missed|skipped} {three|four|two} {lessons|evenings} {because of work|with the flu|in May}; "
        "@Q {praised|noted|mentioned} the {essay|progress|test results} of @P; "
        "the {class|group} {moved|moves} to {room nine|the annex|the library} and @P {likes|minds} it",
    ),
    _domain(
        firm_kinds="Travel; Tours; Cruises; Holidays",
        firm_word="travel agent",
        client="customer",
        staff="tour planner",
        matters="booking; trip; journey; reservation",
        tails="to the islands; along the coast; to the salt lakes; by night train; over the mountains; for six people",
        number_labels="booking number; ticket number; reservation code",
        prefix="TR",
        past="was made; was changed; was cancelled; was upgraded",
        future="starts; ends; must be confirmed; can still be changed",
        amounts="fare; cancellation fee; refund; single supplement",
        goals="{plan|arrange} the trip on a small budget; {get|obtain} a refund; "
        "{surprise|treat} the family on the way; {travel|go} without flying; pack {lightly|for all weathers}",
        ideas="{leave|travel} on a {Tuesday|weekday} {morning|night}; "
        "{rent|borrow} bicycles at the {harbour|station}; "
        "{carry|take} {one bag|a flask|a paper map} for {everyone|the train}; "
        "learn {ten|twenty} words of the {local|island} language; {cook|picnic} every {second|other} evening",
        remarks="@P {asked for|would like|insists on} {a window seat|a quiet cabin|vegetarian meals|a late checkout}; "
        "@Q {suggests|offered|found} {an earlier ferry|a cheaper room|another route}; "
        "@P {travels|is travelling} with {a dog|two children|a wheelchair|a cello}",
    ),
    _domain(
        firm_kinds="Catering; Events; Banquets; Kitchen",
        firm_word="caterer",
        client="customer",
        staff="event manager",
        matters="wedding dinner; banquet; garden party; reception",
        tails="for sixty guests; in the boathouse; with live music; for the retirement; under the lime trees; "
        "for the twins",
        number_labels="order number; event number; invoice number",
        prefix="EV",
        past="was booked; was agreed; was postponed; was celebrated",
        future="takes place; must be paid; will be held; is planned",
        amounts="price for the menu; advance; hall rent; flower budget",
        goals="{feed|seat} sixty guests {cheaply|well}; {plan|design} the {menu|seating}; "
        "{thank|surprise} the guests; {save|rescue} the party if it rains; keep the {children|guests} {busy|happy}",
        ideas="{serve|offer} one {big|warm} {stew|soup} {from the region|in mugs}; "
        "{hang|string} {paper lanterns|lights} in the trees; ask each {table|guest} for a {song|story|recipe}; "
        "{rent|borrow} a {tent|stove} from the {scouts|club}; "
        "let the {children|cousins} {paint|write} the {menus|place cards}",
        remarks="{two|three|five} guests of @P {eat no meat|are allergic to nuts|arrive late}; "
        "@Q {promised|suggested|ordered} {a second cook|more chairs|local cheese|a larger tent}; "
        "@P {changed|has changed} the {music|menu|seating} {twice|again|overnight}",
    ),
    _domain(
        firm_kinds="Water; Energy; Power; Telecom",
        firm_word="supplier",
        client="subscriber",
        staff="service clerk",
        matters="connection; supply contract; account; supply line",
        tails="for the workshop; at the summer house; for the shop; for the ground floor; with solar panels; "
        "at the mill",
        number_labels="meter number; account number; customer number",
        prefix="UT",
        past="was opened; was cut off; was switched over; was cancelled",
        future="goes live; ends; will be switched; runs out",
        amounts="final bill; monthly charge; credit balance; connection fee",
        goals="{lower|bring down} the monthly bill; {change|switch} supplier; {explain|check} the high meter reading; "
        "{repair|restore} the line; {heat|light} the workshop for less",
        ideas="read the meter {every night|each Sunday} for a {week|month}; {insulate|wrap} the {pipes|tank}; "
        "{turn off|unplug} the {old freezer|pump} {overnight|for a day}; "
        "{share|split} a {line|tariff} with the {neighbour|shop}; ask for a {second|new} {meter|test}",
        remarks="the {line|supply|signal} {failed|dropped} {twice|overnight|in the storm} and @P {lost|noted} {a "
        "day|the hours}; @Q {blames|suspects} {a worn cable|an old meter|a wrong reading}; "
        "@P {moves|is moving} {out|in} {shortly|with a lodger|over the summer}",
    ),
    _domain(
        firm_kinds="Builders; Roofing; Joinery; Interiors",
        firm_word="builder",
        client="customer",
        staff="site manager",
        matters="renovation; roof repair; extension; conversion",
        tails="of the old school; over the barn; with the oak floor; of the attic; on the north side; for the loft",
        number_labels="project number; quote number; permit number",
        prefix="BD",
        past="was started; was approved; was halted; was handed over",
        future="begins; must be finished; will be inspected; is planned",
        amounts="estimate; first instalment; cost of materials; penalty",
        goals="{finish|complete} the work before winter; {stay|keep} within the budget; "
        "{live|cook} through the renovation; {fix|mend} the roof {leak|for good}; "
        "{agree|settle} with the neighbours about noise",
        ideas="{cover|seal} the {beams|floor} with {canvas|tarpaulin} at night; "
        "{reuse|clean} the old {tiles|bricks|doors}; {set up|move} a small kitchen in the {hall|shed}; "
        "{walk|inspect} the site every {Friday|second day}; give the neighbours {a timetable|cake|earplugs}",
        remarks="@P {chose|wants|changed to} {slate|pine|green tiles|a steel beam} {instead|after all|for the hall}; "
        "@Q {lost|saved|needs} {two days|a week|another pair of hands}; "
        "the {scaffold|crane|timber} {blocks|reached|left} the {yard|lane} and @P {was pleased|grumbled|paid extra}",
    ),
    _domain(
        firm_kinds="Rowing Club; Gym; Tennis Club; Choir",
        firm_word="club",
        client="member",
        staff="club secretary",
        matters="membership; locker rental; season ticket; trial membership",
        tails="for the whole family; in the second division; for the early hours; with sauna; for juniors; "
        "for the lake",
        number_labels="membership number; card number; locker number",
        prefix="CL",
        past="was taken out; was suspended; was upgraded; was given back",
        future="lapses; is renewed; begins; can be cancelled",
        amounts="yearly fee; joining fee; unpaid dues; refund",
        goals="{train|practise} more often; {leave|quit} the club politely; {win|recruit} new members; "
        "{get|stay} fit over the winter; {raise|collect} money for a boat",
        ideas="{swap|share} the {locker|court} with a {beginner|friend}; "
        "{run|swim} with the {juniors|early group} on {Mondays|Saturdays}; "
        "{bake|sell} {bread|cakes} at the {regatta|concert}; keep a {training|sleep} log; "
        "{offer|hold} an {open evening|easy lesson}",
        remarks="@P {hurt|strained} {a shoulder|an ankle|a wrist} and {rests|trains alone} {until spring|for now}; "
        "@Q {keeps|found|mislaid} the {keys|card|form} of @P; "
        "the {hall|pool|boathouse} {is|was} closed for {repairs|a week} and @P {went running|asked for credit}",
    ),
    _domain(
        firm_kinds="Mills; Foods; Instruments; Textiles; Press",
        firm_word="company",
        client="employee",
        staff="personnel officer",
        matters="employment contract; pension plan; transfer; secondment",
        tails="in the night shift; for the branch abroad; in the test kitchen; at the dye works; in sales; "
        "for the archive",
        number_labels="staff number; contract number; payroll number",
        prefix="HR",
        past="was signed; was ended; was amended; was approved",
        future="starts; ends; will be reviewed; takes effect",
        amounts="monthly salary; bonus; travel refund; severance pay",
        goals="ask for a raise; {prepare|plan} the farewell party; {move|transfer} to the other branch; "
        "{balance|combine} work and night school; {settle|hand over} the open tasks",
        ideas="{list|write up} three {projects|results} that went well; "
        "{bring|show} {a chart|letters} from {customers|colleagues}; "
        "{train|coach} a {deputy|newcomer} {in advance|for a month}; {leave|finish} early on {Wednesdays|Fridays}; "
        "{book|ask for} a room {upstairs|away from the office}",
        remarks="@P {worked|has worked} {nights|abroad|from home} {for years|since spring|without complaint}; "
        "@Q {supports|delayed|signed off} the {request|transfer|report} of @P; "
        "@P {handed in|still has} {the laptop|two keys|a badge|the uniform}",
    ),
)
