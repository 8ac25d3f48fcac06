"""The blind benchmark: policies with their defaults, told the SLA and the profile, on windows not tuned on."""
