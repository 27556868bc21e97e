"""What the stages share: pure rules, maths and the ways between disk and module. No flow lives here."""
