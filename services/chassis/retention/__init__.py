"""What is kept for how long, in one policy: everything else is removed by the services themselves, regularly."""
