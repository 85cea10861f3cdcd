"""Contains how agents answer. Replies are shared by the splits: a model must learn them, and the rules distinguish good ones."""

from collections.abc import Mapping

OPENINGS = (
    "Sorry for the trouble.",
    "Thank you for telling us.",
    "Thanks for writing to us.",
    "We are sorry about this.",
    "I am happy to help.",
    "We apologise for this.",
    "Thank you for your patience.",
    "I am sorry to hear that.",
)
"""The beginnings of good replies; one of ACTIONS follows."""

ACTIONS: Mapping[str, tuple[str, ...]] = {
    "billing": (
        "We will check the payment for your {item} and email you the result.",
        "Please send us the order number of the {item}, and we will correct the bill.",
        "Our billing team will go through the {item} invoice with you.",
        "I have opened a case about the {item} payment.",
        "We will compare the {item} price with your bill and write back.",
        "You will get a new invoice for the {item} by email.",
    ),
    "delivery": (
        "We have asked the courier where your {item} is and will email you.",
        "Please confirm your address, so that the {item} comes to the right door.",
        "I will follow the {item} parcel and write to you tomorrow.",
        "Our delivery team is looking for your {item} now.",
        "We will agree on a new date for the {item} with you.",
        "You will get a new tracking link for the {item} by email.",
    ),
    "returns": (
        "We will email you a return label for the {item}.",
        "Please pack the {item} in any box and use the label in our email.",
        "Our returns team will tell you how to send the {item} back.",
        "Once the {item} is here, we will refund the price you paid.",
        "We can exchange the {item}; please tell us which one you prefer.",
        "I have opened a return for your {item}.",
    ),
    "technical": (
        "Please unplug the {item} for a minute and tell us what happens.",
        "Our technician will go through the {item} settings with you.",
        "We will email you the steps to reset the {item}.",
        "Please send us a photo of the {item}, so that we can find the fault.",
        "I have asked a technician about your {item} and will write back.",
        "Please update the {item} and tell us whether it helps.",
    ),
    "account": (
        "We will email you a new link, so that you can see your {item}.",
        "Please tell us your email, and we will connect the {item} to it.",
        "Our account team will check the login for your {item}.",
        "I have asked our account team about your {item} and will write back.",
        "We will check your profile and the {item} order in it.",
        "Please confirm your name, and we will update the {item} order.",
    ),
}

REPLIES: Mapping[str, tuple[str, ...]] = {
    "curt": (
        "Read the terms before you write.",
        "That is not our problem.",
        "It is all on the website, look there.",
        "Ask the manufacturer, not us.",
        "Fill in the form like all others.",
        "You did something wrong with it.",
        "Wrong department. Try elsewhere.",
        "No. That is not possible.",
        "We told you already. Wait.",
        "Your {item} is your own business.",
        "Send proof or leave it.",
        "Read the {item} manual first.",
        "Nothing we can do. Case closed.",
        "Do not write again about this.",
    ),
    "vague": (
        "Someone may look at it at some point.",
        "It could be one thing or another, hard to say.",
        "Things like this happen sometimes, for some reason.",
        "Your message was noted and may be handled somehow.",
        "It depends on various things, as usual.",
        "You might hear something from somebody eventually.",
        "Maybe it will sort itself out, maybe not.",
        "We will see, one way or another.",
        "There may be news about the {item} at some point.",
        "This is possibly being worked on somewhere.",
        "Thanks, we might get to it some day.",
        "Something could perhaps be done about it.",
        "Somebody somewhere should know about the {item}, perhaps.",
        "It is probably fine, more or less.",
    ),
    "over-promising": (
        "We guarantee that this will be perfect in one minute!",
        "I promise you will never have a problem again!",
        "You will get everything for free from now on!",
        "It is solved instantly, you have our 100% guarantee!",
        "Your {item} will be perfect forever, guaranteed!",
        "We promise you a new {item} and all your money within the hour!",
        "Sorry! A better {item} is at your door in ten minutes, I promise!",
        "Nothing can ever go wrong again, we guarantee it!",
        "You will have three new ones today, no matter what!",
        "Our boss will fix it in person tonight, guaranteed!",
        "Thank you! The {item} is free, and so is all you ever buy!",
        "We always solve everything instantly, you can be 100% sure!",
        "I guarantee you the best {item} in the world today!",
        "All will be wonderful in seconds, that is a promise!",
    ),
}
"""Replies of the other qualities. Some name the item or sound kind, so that neither alone makes a reply good."""
